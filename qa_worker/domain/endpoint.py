"""A receiver of alerts: how it fares, how much may be under way to it, when it is left alone, when it is switched off.

One that fails again and again gets a pause, and after it one delivery as a probe; each failed probe doubles the pause, a
success ends all of it. So a dead receiver costs a slot now and then, and the deliveries to it wait without using up
attempts. One that has failed for days is switched off. One that works and is slow gets one delivery at a time, and all of
those together half of the slots at most, or a few of them would hold up everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from qa_worker.domain.breaker import BreakerRules, open_s
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.retry import RetryPolicy, delay_s
from qa_worker.domain.work import WorkState, WorkStatus


class EndpointKind(StrEnum):
    """How a receiver is spoken to."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    APPRISE = "apprise"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """At most `in_flight` deliveries at once; after `threshold` failures in a row a pause of `pause_s`, up to `max_pause_s`.

    Switched off where it has failed for `off_after_s` without any success, at least `off_after_failures` times. To all of
    those that take longer than `slow_s` for a delivery, `slow_in_flight` are under way together.
    """

    in_flight: int = 4
    threshold: int = 5
    pause_s: float = 15.0
    max_pause_s: float = 300.0
    off_after_s: float = 5 * 24 * 3600.0
    off_after_failures: int = 10
    slow_s: float = 2.0
    slow_in_flight: int = 16


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint has fared since its last success.

    `took_s` is about how long it takes for a delivery: each one counts half of all before it; None where there was none.
    """

    failing_since: datetime | None = None
    consecutive_failures: int = 0
    paused_until: datetime | None = None
    took_s: float | None = None

    def paused_at(self, now: datetime) -> bool:
        """Whether it is left alone."""
        return self.paused_until is not None and self.paused_until > now


def room(health: Health, rules: HealthRules) -> int:
    """How many deliveries may be under way at once.

    One where it has failed too often (the probe), where it is slow, and where nobody knows yet how quick it is.
    """
    quick = health.took_s is not None and health.took_s <= rules.slow_s
    return rules.in_flight if quick and health.consecutive_failures < rules.threshold else 1


def is_slow(health: Health, rules: HealthRules) -> bool:
    """Whether it shares the few slots that slow ones get."""
    return health.took_s is not None and health.took_s > rules.slow_s


def after_failure(health: Health, failure: Failure, *, rules: HealthRules, now: datetime, max_wait_s: float) -> Health:
    """The health after a failed delivery. `max_wait_s` bounds what a receiver may ask for.

    What was under way when the pause began doesn't make it longer: its failures are one event. A refused alert (4xx)
    comes quickly and says nothing of the next one, so it is counted and pauses nothing.
    """
    since = health.failing_since or now
    if health.paused_at(now):
        return replace(health, failing_since=since)
    failures = health.consecutive_failures + 1
    pause_s = min(max(failure.retry_after_s or 0.0, 0.0), max_wait_s)
    if failures >= rules.threshold and failure.kind is not FailureKind.REJECTED:
        breaker = BreakerRules(recovery_s=rules.pause_s, max_recovery_s=rules.max_pause_s)
        pause_s = max(pause_s, open_s(failures - rules.threshold + 1, breaker))
    until = now + timedelta(seconds=pause_s) if pause_s > 0 else None
    return Health(since, failures, until)


def is_given_up(health: Health, *, rules: HealthRules, now: datetime) -> bool:
    """Whether it has failed for so long that it is switched off."""
    if health.failing_since is None or health.consecutive_failures < rules.off_after_failures:
        return False
    return (now - health.failing_since).total_seconds() >= rules.off_after_s


def patience_s(policy: RetryPolicy, rules: HealthRules, *, try_s: float) -> float:
    """How long a delivery that was tried waits for a failing endpoint: at least as long as all its tries can take.

    That is each wait of the schedule with the most jitter, each try with the `try_s` seconds that it may take, and the
    longest pause, because the last try may have to wait for its end.
    """
    waits = (delay_s(policy, attempt=attempt, jitter=1.0) for attempt in range(1, policy.max_attempts))
    return sum(waits) + policy.max_attempts * try_s + rules.max_pause_s


def why_not_sent(status: WorkStatus, *, now: datetime) -> str:
    """Why a message about this delivery has nothing to do: the text of a `Skipped`."""
    match status.state:
        case WorkState.DONE:
            return "already delivered"
        case WorkState.DEAD:
            return "given up on before"
        case WorkState.RUNNING:
            return "being sent by another worker"
        case WorkState.PENDING if status.not_before > now:
            return "waiting for its next attempt"
        case _:
            return "claimed by another worker"
