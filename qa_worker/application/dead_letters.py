"""What dead letters need of the world: the table, which is the truth, and the queue on which monitors see them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from qa_worker.domain.dead_letter import Choice, LetterKind, LetterState


@dataclass(frozen=True, slots=True)
class UnreadMessage:
    """A message that couldn't be used. `problem` quotes nothing of it; `head` is its beginning, at most 2 KiB.

    `ref_id` is made of its queue, its task and what it says: the same message again is the same letter. `whole`: the head
    is all of it, and text.
    """

    ref_id: uuid.UUID
    queue: str
    task: str
    reason: str
    problem: str
    died_at: datetime
    size: int
    whole: bool
    head: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Notice:
    """What lies on the queue for one letter: all of it, so that it is still there where the table has lost it.

    Of several about one letter that with its `announcement` counts; `said_at` is when it was given that one. `payload` has
    ids only, and of a message its beginning.
    """

    letter_id: uuid.UUID
    announcement: uuid.UUID
    said_at: datetime
    kind: LetterKind
    reason: str
    queue: str
    task: str
    ref_id: uuid.UUID | None
    workspace_id: uuid.UUID | None
    endpoint_id: uuid.UUID | None
    attempts: int
    first_error: str
    last_error: str
    died_at: datetime
    deaths: int
    again_of: uuid.UUID | None
    payload: Mapping[str, str | int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OpenLetter:
    """A letter that is being settled, with what a replay needs."""

    id: uuid.UUID
    kind: LetterKind
    ref_id: uuid.UUID
    queue: str
    task: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settlement:
    """Who settled a letter, how, and in which words."""

    state: LetterState
    by: str
    note: str = ""


class DeadLetters(Protocol):
    """The letters. What dies writes its own, in the transaction of its death."""

    def add_message(self, message: UnreadMessage) -> None:
        """Store a message. One that has an open letter adds to its `attempts`: how often it came."""
        ...

    def choose(self, choice: Choice, *, limit: int) -> Sequence[uuid.UUID]:
        """Letters, the oldest first."""
        ...

    def count(self, choice: Choice) -> int:
        """How many letters these are."""
        ...

    def settle(self, letter_id: uuid.UUID, settlement: Settlement) -> OpenLetter | None:
        """Open -> settled; None where somebody else has settled it, or nobody knows it."""
        ...

    def started(self, letter_id: uuid.UUID, replay_ref: uuid.UUID) -> None:
        """Note the piece of work that the replay of this letter started."""
        ...

    def redeliver(self, delivery_id: uuid.UUID, *, max_attempts: int) -> uuid.UUID | None:
        """A new delivery of a dead one's alert to its endpoint, with the same `webhook-id`, pending, due now.

        None where the alert is gone, or where this one was replayed before.
        """
        ...

    def to_announce(self, *, limit: int) -> Sequence[Notice]:
        """Open letters that the queue doesn't know of, the oldest first, each under a fresh announcement."""
        ...

    def announced(self, notices: Sequence[Notice]) -> None:
        """Note that these lie on the queue."""
        ...

    def restore(self, notices: Sequence[Notice], *, since: datetime) -> int:
        """These lay on the queue; letters that the table doesn't know, and that were announced `since`, come back into it.

        Returns how many. One whose work has another open letter by now doesn't.
        """
        ...

    def recall(self, notices: Sequence[Notice]) -> int:
        """These were taken off the queue; those that still count must be announced again. Returns how many."""
        ...

    def recall_all(self) -> int:
        """The queue has lost some: all must be announced again. Returns how many."""
        ...

    def on_the_queue(self) -> int:
        """How many open letters have a message on the queue, as far as is known."""
        ...


class LetterQueue(Protocol):
    """The queue `dead-letter`, which nobody consumes. Each method raises StoreUnavailable where the broker is away."""

    def publish(self, notices: Sequence[Notice]) -> None:
        """Put messages about these letters at its end."""
        ...

    def keep(self, message: UnreadMessage) -> None:
        """Put a message there whose letter can't be written now, with all that is known of it."""
        ...

    def depth(self) -> int:
        """How many messages lie there."""
        ...

    def take(self, limit: int, settle: Callable[[Sequence[Notice | UnreadMessage]], None]) -> int:
        """Take at most so many from its front, hand them to `settle`, and remove them when it has returned.

        Where `settle` raises they stay. Returns how many were taken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Replayed:
    """A letter's work has begun anew. `started` is that piece of work."""

    letter_id: uuid.UUID
    kind: LetterKind
    started: uuid.UUID


@dataclass(frozen=True, slots=True)
class Refused:
    """A letter that was left as it is, and why."""

    letter_id: uuid.UUID
    why: str


Replay = Replayed | Refused
