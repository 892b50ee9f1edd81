"""What sending alerts needs of the world: something that posts, one channel for each kind of endpoint, a safe for secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from qa_worker.domain.failure import Failure

GONE = 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back of one try. `failure` None is delivered; `head` is the beginning of what was said, at most 1 KiB.

    `status` is None where there was no HTTP answer.
    """

    failure: Failure | None
    duration_ms: int
    status: int | None = None
    head: str = ""

    @property
    def gone(self) -> bool:
        """The receiver says that it wants nothing more, ever."""
        return self.status == GONE


@dataclass(frozen=True, slots=True)
class Parcel:
    """One try of one delivery. The bytes of `body` and `message_id` are the same on every try and every replay.

    `secrets` are those that sign, the current one first. What is said, to whom and with which secret is not shown where
    this is printed.
    """

    message_id: str
    body: bytes = field(repr=False)
    sent_at: datetime
    target: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Poster(Protocol):
    """Sends one HTTP POST to a place that may be sent to, within a deadline."""

    def check(self, url: str) -> str:
        """What may be shown of a URL (scheme, host, port). Raises InvalidInput where nothing can be sent to it."""
        ...

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post it. Every fault of the receiver, of the network and of the URL is a failure in the answer."""
        ...


class Channel(Protocol):
    """One kind of endpoint."""

    def check(self, target: str) -> str:
        """What may be shown of this target (scheme, host, port). Raises InvalidInput where nothing can be sent to it."""
        ...

    def send(self, parcel: Parcel) -> Answer:
        """Try once; returns within the time that a delivery may take."""
        ...


class Vault(Protocol):
    """Keeps what must not be read in the database."""

    def seal(self, text: str) -> bytes:
        """Encrypt. Raises InvalidInput where there is no key."""
        ...

    def open(self, sealed: bytes) -> str:
        """Decrypt. Raises InvalidInput where no key fits."""
        ...

    def reseal(self, sealed: bytes) -> bytes:
        """Encrypt anew with the first key. Raises InvalidInput where no key fits."""
        ...
