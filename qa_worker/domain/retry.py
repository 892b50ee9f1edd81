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
    `max_retry_after_s` bounds what a provider may ask for. `look_again_s` is how often a spent budget or a broken
    installation is looked at. Where `parks_blocked` is off, a broken installation uses up attempts like any other fault.
    """

    schedule_s: tuple[float, ...]
    max_attempts: int
    unreadable_attempts: int = 3
    max_retry_after_s: float = 3600.0
    look_again_s: float = 900.0
    parks_blocked: bool = True


def delay_s(policy: RetryPolicy, *, attempt: int, jitter: float) -> float:
    """Seconds to wait after attempt `attempt` (from 1). `jitter` in [0, 1) spreads them by +-20 %."""
    base = policy.schedule_s[min(max(attempt, 1), len(policy.schedule_s)) - 1]
    return base * (1 - JITTER + 2 * JITTER * jitter)


@dataclass(frozen=True, slots=True)
class Tried:
    """How often the work was tried: attempts with this one, parkings before it, unusable answers with this one.

    `paid`: something was billed for this attempt.
    """

    attempt: int
    parked: int = 0
    unreadable: int = 0
    paid: bool = False


def next_step(
    policy: RetryPolicy, failure: Failure, *, tried: Tried, now: datetime, jitter: float
) -> RetryAt | Parked | Dead:
    """What happens after an attempt failed with `failure`.

    What the call is not to blame for parks it (the attempt is undone): limits for as long as the provider asked, bounded,
    or else by the schedule; a spent budget and a broken installation until the next look. Rejected work is dead at once;
    all else waits for its turn in the schedule until the attempts are used up.

    An attempt that was `paid` for counts whatever ended it: one of several answers that a verdict needs came, and is lost.
    Undone attempts have no end, so they must cost nothing.
    """
    step = _by_kind(policy, failure, tried, now, jitter)
    if isinstance(step, Parked) and tried.paid:
        wait = delay_s(policy, attempt=tried.attempt, jitter=jitter)
        return _retry_or_dead(policy, failure, tried, now, max(wait, (step.until - now).total_seconds()))
    return step


def _by_kind(
    policy: RetryPolicy, failure: Failure, tried: Tried, now: datetime, jitter: float
) -> RetryAt | Parked | Dead:
    asked = min(max(failure.retry_after_s or 0.0, 0.0), policy.max_retry_after_s)
    wait = delay_s(policy, attempt=tried.attempt, jitter=jitter)
    match failure.kind:
        case FailureKind.RATE_LIMITED | FailureKind.HELD:
            # Never before the provider's time: jitter is added on top, or all waiters would come back at once.
            first = delay_s(policy, attempt=1, jitter=jitter)
            by_schedule = delay_s(policy, attempt=tried.parked + 1, jitter=jitter)
            until = asked + first * JITTER if failure.retry_after_s is not None else by_schedule
            return Parked(now + timedelta(seconds=until), failure.code)
        case FailureKind.BLOCKED if not policy.parks_blocked:
            return _retry_or_dead(policy, failure, tried, now, wait)
        case FailureKind.SPEND_CAP | FailureKind.BLOCKED:
            return Parked(now + timedelta(seconds=policy.look_again_s * (1 + JITTER * jitter)), failure.code)
        case FailureKind.REJECTED:
            return Dead(failure.code)
        case FailureKind.UNREADABLE:
            # The same request is refused again, and some refusals are billed (docs of the Messages API, refusals).
            hopeless = failure.code.startswith("refusal") or tried.unreadable >= policy.unreadable_attempts
            return Dead(failure.code) if hopeless else _retry_or_dead(policy, failure, tried, now, wait)
        case FailureKind.TRANSIENT | FailureKind.OVERLOADED | FailureKind.ABANDONED:
            return _retry_or_dead(policy, failure, tried, now, max(wait, asked))
        case _:
            assert_never(failure.kind)


def _retry_or_dead(policy: RetryPolicy, failure: Failure, tried: Tried, now: datetime, wait_s: float) -> RetryAt | Dead:
    if tried.attempt >= policy.max_attempts:
        return Dead(failure.code)
    return RetryAt(now + timedelta(seconds=wait_s), failure.code)
