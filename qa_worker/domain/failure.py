"""Why a piece of work did not succeed, in the few kinds that decide what happens next."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from qa_worker.domain.evaluation import Usage

SPEND_CAP = "spend_cap"
"""The code of what is held back because the provider's spend limit was found reached by others."""


class FailureKind(StrEnum):
    """Set once, by the adapter that understands the vendor's error."""

    TRANSIENT = "transient"
    """Connection faults, timeouts, 5xx: try again later."""
    RATE_LIMITED = "rate_limited"
    """The provider's limit: wait as long as it says; costs no attempt."""
    OVERLOADED = "overloaded"
    """The provider's own load (529): try again later."""
    REJECTED = "rejected"
    """Can't succeed however often it is tried."""
    UNREADABLE = "unreadable"
    """An answer came and couldn't be used: tried a few times, then a person must look."""
    BLOCKED = "blocked"
    """The installation must be mended first (key, permission, model's name): parks, for no call is to blame."""
    SPEND_CAP = "spend_cap"
    """The provider's spend limit: parks until the cap is raised or the month turns."""
    HELD = "held"
    """Our own gateway held it back (open breaker, used-up limit, spent budget): nothing was sent, no attempt is used up."""
    ABANDONED = "abandoned"
    """The process that worked on it died."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure: its kind, a code (`http_529`, `refusal`, `max_tokens`), a message fit for people, the request's id.

    `usage` and `cost_micro_usd` (None: not known) are what was billed all the same, where nothing else says that: of a
    reply in a run, whose earlier messages may have succeeded.
    """

    kind: FailureKind
    code: str
    message: str
    retry_after_s: float | None = None
    request_id: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_micro_usd: int | None = 0


def deadline() -> Failure:
    """The time for a whole request, quick retries included, is over."""
    return Failure(FailureKind.TRANSIENT, "deadline", "The time for the whole request was over.")
