"""When a failed piece of work is tried again: a pure function of the schedule, the attempt and the failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Parked, RetryAt

JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """One visible schedule, in seconds: `schedule_s[n - 1]` is the wait after the n-th attempt, the last one repeats.

    `max_attempts` bounds all attempts, `unreadable_attempts` those that got an answer nobody could use.
    `max_retry_after_s` bounds what a provider may ask for. `spend_cap_wait_s` is how often a spend cap is looked at.
    """

    schedule_s: tuple[float, ...]
    max_attempts: int
    unreadable_attempts: int = 3
    max_retry_after_s: float = 3600.0
    spend_cap_wait_s: float = 900.0


def delay_s(policy: RetryPolicy, *, attempt: int, jitter: float) -> float:
    """Seconds to wait after attempt `attempt` (from 1). `jitter` in [0, 1) spreads them by +-20 %."""
    base = policy.schedule_s[min(max(attempt, 1), len(policy.schedule_s)) - 1]
    return base * (1 - JITTER + 2 * JITTER * jitter)


def next_step(
    policy: RetryPolicy, failure: Failure, *, attempt: int, now: datetime, jitter: float
) -> RetryAt | Parked | Dead:
    """What happens after attempt `attempt` failed with `failure`.

    A provider's limit parks the work (the attempt is undone, and the wait is what the provider asked for, bounded);
    rejected work is dead at once; all else waits for its turn in the schedule until the attempts are used up.
    """
    wait = delay_s(policy, attempt=attempt, jitter=jitter)
    match failure.kind:
        case FailureKind.RATE_LIMITED | FailureKind.HELD:
            asked = min(max(failure.retry_after_s or 0.0, 0.0), policy.max_retry_after_s)
            # Never before the provider's time: jitter is added on top, or all waiters would come back at once.
            until = asked + wait * JITTER if failure.retry_after_s is not None else wait
            return Parked(now + timedelta(seconds=until), failure.code)
        case FailureKind.SPEND_CAP:
            return Parked(now + timedelta(seconds=policy.spend_cap_wait_s * (1 + JITTER * jitter)), failure.code)
        case FailureKind.REJECTED:
            return Dead(failure.code)
        case FailureKind.UNREADABLE:
            if failure.code.startswith("refusal"):
                # The same request is refused again, and some refusals are billed (docs of the Messages API, refusals).
                return Dead(failure.code)
            return _retry_or_dead(min(policy.unreadable_attempts, policy.max_attempts), failure, attempt, now, wait)
        case FailureKind.TRANSIENT | FailureKind.OVERLOADED | FailureKind.ABANDONED:
            asked = min(max(failure.retry_after_s or 0.0, 0.0), policy.max_retry_after_s)
            return _retry_or_dead(policy.max_attempts, failure, attempt, now, max(wait, asked))
        case _:
            assert_never(failure.kind)


def _retry_or_dead(limit: int, failure: Failure, attempt: int, now: datetime, wait_s: float) -> RetryAt | Dead:
    if attempt >= limit:
        return Dead(failure.code)
    return RetryAt(now + timedelta(seconds=wait_s), failure.code)
