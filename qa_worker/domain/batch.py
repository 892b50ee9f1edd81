"""A Message Batch: where it stands, which of the provider's batches it is, when it is looked at again.

    preparing --sent--> creating --accepted, or found--> in_progress --over--> ended --read--> collected
        ^                  |                                  |                  ^  |
        +-- surely not made, or looked for in vain            +---- gone --------+  +--no results to come--> failed

Creating one is not idempotent, and the provider takes no key of ours: after an answer that was lost, the batch is looked
for before it is sent again. Only one is made at a time, so that one of the provider's batches that nobody knows, of the
right time and size, can only be that one.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Parked, RetryAt
from qa_worker.domain.retry import RetryPolicy, Tried, next_step

CLOCK_SKEW = timedelta(minutes=5)
"""How far our clock and the provider's may be apart when a lost batch is looked for."""

RESULTS_KEPT = timedelta(days=29)
"""How long the provider keeps results, from when a batch was made (build-with-claude/batch-processing)."""

_NO_SUCH_THING = frozenset({"http_404", "http_405", "http_501"})
_SURE_AFTER = 4


class BatchState(StrEnum):
    """COLLECTED and FAILED are final."""

    PREPARING = "preparing"
    CREATING = "creating"
    """It was sent, and whether the provider has it isn't known yet."""
    IN_PROGRESS = "in_progress"
    ENDED = "ended"
    COLLECTED = "collected"
    FAILED = "failed"
    """It gave no results: its calls went back."""


OPEN = frozenset({BatchState.PREPARING, BatchState.CREATING, BatchState.IN_PROGRESS, BatchState.ENDED})
BEING_MADE = frozenset({BatchState.PREPARING, BatchState.CREATING})


class ResultKind(StrEnum):
    """What became of one item. Only SUCCEEDED was billed. MISSING: the results say nothing of it."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    CANCELED = "canceled"
    EXPIRED = "expired"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Counts:
    """The items of a batch by what became of them. The provider tells them when all of it is over."""

    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """A batch as the provider tells it."""

    id: str
    created_at: datetime
    request_count: int
    ended: bool
    counts: Counts = Counts()
    expires_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of ours while a worker is at it; `token` is that worker's lease.

    `adopted`: found at the provider, and not proven to be ours before its results carry our ids. `dissolved`: no results
    will come, and its calls go to the queue. `began_at` is when it was sent, `unsure_since` when that ended without an
    answer. `failures` counts faults of the provider in a row, `deaths` the workers that never gave it back.
    `items_leased_s` is how long its evaluations stay leased.
    """

    id: uuid.UUID
    token: uuid.UUID
    model: str
    state: BatchState = BatchState.PREPARING
    request_count: int = 0
    provider_id: str | None = None
    adopted: bool = False
    dissolved: bool = False
    began_at: datetime | None = None
    unsure_since: datetime | None = None
    submitted_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    collected_at: datetime | None = None
    cancel_asked: bool = False
    cancel_told_at: datetime | None = None
    counts: Counts = Counts()
    cost_micro_usd: int | None = None
    failures: int = 0
    deaths: int = 0
    failure: Failure | None = None
    items_leased_s: float = 0.0


def the_same(batch: Batch, listed: Iterable[ProviderBatch], *, known: Collection[str]) -> ProviderBatch | None:
    """Which of the provider's batches this one, whose creation ended without an answer, probably is.

    It was created between our beginning and our giving up, has as many requests, and belongs to no other row (`known`).
    Of several the oldest: if its results turn out not to be ours it becomes known, and the next one is taken.
    """
    if batch.began_at is None:
        return None
    first, last = batch.began_at - CLOCK_SKEW, (batch.unsure_since or batch.began_at) + CLOCK_SKEW
    fits = [
        one
        for one in listed
        if one.id not in known and one.request_count == batch.request_count and first <= one.created_at <= last
    ]
    return min(fits, key=lambda one: one.created_at, default=None)


def surely_not_made(failure: Failure) -> bool:
    """Whether a failed creation has made nothing: the provider refused it, or was never reached.

    A timeout, a cut connection or a 5xx may come after the batch was accepted.
    """
    if failure.kind is FailureKind.TRANSIENT:
        return failure.code in ("connect_timeout", "pool_timeout")
    return failure.code != "sdk"


def is_unknown(failure: Failure) -> bool:
    """Whether the server knows nothing of this batch, or of batches at all: 404, 405 (no such method), 501."""
    return failure.code in _NO_SUCH_THING


def is_refused_for_good(failure: Failure) -> bool:
    """Whether sending the same batch again is no use: it is refused, or this server has no batches."""
    return (failure.kind is FailureKind.REJECTED and failure.code != "sdk") or is_unknown(failure)


def is_lost(batch: Batch, failure: Failure, *, now: datetime) -> bool:
    """Whether a batch that was made is gone: the provider has known no such thing at look after look, or the time is
    over for which it keeps results.

    Not at once: an address that is wrong for an hour must not cost the results of a day.
    """
    if batch.submitted_at is not None and now - batch.submitted_at > RESULTS_KEPT:
        return True
    return is_unknown(failure) and batch.failures >= _SURE_AFTER


def failed(batch: Batch, failure: Failure) -> Batch:
    """The batch after one more fault in a row."""
    return replace(batch, failure=failure, failures=batch.failures + 1)


def wait_s(policy: RetryPolicy, batch: Batch, *, now: datetime, jitter: float) -> float:
    """Seconds until a batch is looked at again after its latest fault: by the schedule of retries, and without an end.

    Nothing is lost by waiting for as long as results are kept.
    """
    if batch.failure is None:
        return 0.0
    tried = Tried(batch.failures, parked=batch.failures)
    step = next_step(
        replace(policy, max_attempts=batch.failures + 1), batch.failure, tried=tried, now=now, jitter=jitter
    )
    match step:
        case RetryAt(when) | Parked(when):
            return (when - now).total_seconds()
        case Dead():
            return policy.look_again_s
        case _:
            assert_never(step)
