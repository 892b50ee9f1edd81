"""When work is tried again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Parked, RetryAt
from qa_worker.domain.retry import RetryPolicy, Tried, delay_s, next_step

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
POLICY = RetryPolicy(schedule_s=(5, 15, 60), max_attempts=5, unreadable_attempts=3)
MIDDLE = 0.5


def _step(kind: FailureKind, *, attempt: int, retry_after_s: float | None = None) -> RetryAt | Parked | Dead:
    failure = Failure(kind, "code", "message", retry_after_s=retry_after_s)
    tried = Tried(attempt, parked=attempt - 1, unreadable=attempt)
    return next_step(POLICY, failure, tried=tried, now=NOW, jitter=MIDDLE)


@pytest.mark.parametrize(
    ("kind", "attempt", "retry_after_s", "expected"),
    [
        (FailureKind.TRANSIENT, 1, None, RetryAt(NOW + timedelta(seconds=5), "code")),
        (FailureKind.TRANSIENT, 2, None, RetryAt(NOW + timedelta(seconds=15), "code")),
        (FailureKind.TRANSIENT, 4, None, RetryAt(NOW + timedelta(seconds=60), "code")),
        (FailureKind.TRANSIENT, 5, None, Dead("code")),
        (FailureKind.OVERLOADED, 1, 40, RetryAt(NOW + timedelta(seconds=40), "code")),
        (FailureKind.OVERLOADED, 1, 1e9, RetryAt(NOW + timedelta(seconds=3600), "code")),
        (FailureKind.OVERLOADED, 5, 40, Dead("code")),
        (FailureKind.REJECTED, 1, None, Dead("code")),
        (FailureKind.UNREADABLE, 2, None, RetryAt(NOW + timedelta(seconds=15), "code")),
        (FailureKind.UNREADABLE, 3, None, Dead("code")),
        (FailureKind.RATE_LIMITED, 1, 30, Parked(NOW + timedelta(seconds=31), "code")),
        (FailureKind.RATE_LIMITED, 99, None, Parked(NOW + timedelta(seconds=60), "code")),
        (FailureKind.RATE_LIMITED, 1, -5, Parked(NOW + timedelta(seconds=1), "code")),
        (FailureKind.RATE_LIMITED, 2, None, Parked(NOW + timedelta(seconds=15), "code")),
        (FailureKind.HELD, 9, 20, Parked(NOW + timedelta(seconds=21), "code")),
        (FailureKind.SPEND_CAP, 99, None, Parked(NOW + timedelta(seconds=990), "code")),
        (FailureKind.BLOCKED, 99, None, Parked(NOW + timedelta(seconds=990), "code")),
    ],
)
def test_each_kind_of_failure_has_its_next_step(
    kind: FailureKind, attempt: int, retry_after_s: float | None, expected: RetryAt | Parked | Dead
) -> None:
    assert _step(kind, attempt=attempt, retry_after_s=retry_after_s) == expected


def test_a_broken_installation_can_use_up_attempts_like_any_other_fault() -> None:
    impatient = replace(POLICY, parks_blocked=False)
    refused = Failure(FailureKind.BLOCKED, "http_401", "The key is refused.")

    first = next_step(impatient, refused, tried=Tried(1), now=NOW, jitter=MIDDLE)
    last = next_step(impatient, refused, tried=Tried(5), now=NOW, jitter=MIDDLE)

    assert (first, last) == (RetryAt(NOW + timedelta(seconds=5), "http_401"), Dead("http_401"))


def test_answers_that_nobody_could_read_are_counted_by_themselves() -> None:
    """Three overloads before the first unreadable answer leave it its own number of tries."""
    odd = Failure(FailureKind.UNREADABLE, "not_json", "No JSON.")

    step = next_step(POLICY, odd, tried=Tried(4, unreadable=1), now=NOW, jitter=MIDDLE)

    assert isinstance(step, RetryAt)


def test_a_refusal_is_not_asked_for_again() -> None:
    refused = Failure(FailureKind.UNREADABLE, "refusal:bio", "The model refused.")

    assert next_step(POLICY, refused, tried=Tried(1), now=NOW, jitter=MIDDLE) == Dead("refusal:bio")


@pytest.mark.parametrize(
    ("kind", "retry_after_s", "wait_s"),
    [
        (FailureKind.HELD, 1, 15),
        (FailureKind.HELD, 100, 101),
        (FailureKind.RATE_LIMITED, 30, 31),
        (FailureKind.RATE_LIMITED, None, 15),
        (FailureKind.SPEND_CAP, None, 990),
        (FailureKind.BLOCKED, None, 990),
        (FailureKind.TRANSIENT, None, 15),
    ],
)
def test_an_attempt_that_was_paid_for_counts_whatever_ended_it(
    kind: FailureKind, retry_after_s: float | None, wait_s: float
) -> None:
    failure = Failure(kind, "code", "message", retry_after_s=retry_after_s)

    def step(attempt: int) -> RetryAt | Parked | Dead:
        return next_step(POLICY, failure, tried=Tried(attempt, parked=0, paid=True), now=NOW, jitter=MIDDLE)

    assert step(2) == RetryAt(NOW + timedelta(seconds=wait_s), "code")
    assert step(POLICY.max_attempts) == Dead("code")


@given(attempt=st.integers(1, 200), jitter=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_bounded_by_its_place_in_the_schedule(attempt: int, jitter: float) -> None:
    base = POLICY.schedule_s[min(attempt, 3) - 1]

    assert 0.8 * base <= delay_s(POLICY, attempt=attempt, jitter=jitter) <= 1.2 * base


@given(attempt=st.integers(1, 200), jitter=st.floats(0, 1, exclude_max=True))
def test_delays_never_get_shorter_with_more_attempts(attempt: int, jitter: float) -> None:
    assert delay_s(POLICY, attempt=attempt, jitter=jitter) <= delay_s(POLICY, attempt=attempt + 1, jitter=jitter)


@given(
    kind=st.sampled_from(FailureKind),
    attempt=st.integers(1, 50),
    jitter=st.floats(0, 1, exclude_max=True),
    retry_after_s=st.none() | st.floats(-1e6, 1e12),
    paid=st.booleans(),
)
def test_nothing_waits_in_the_past_or_longer_than_the_provider_may_ask(
    kind: FailureKind, attempt: int, jitter: float, retry_after_s: float | None, *, paid: bool
) -> None:
    failure = Failure(kind, "code", "message", retry_after_s=retry_after_s)

    step = next_step(POLICY, failure, tried=Tried(attempt, attempt, attempt, paid), now=NOW, jitter=jitter)

    assert not (paid and isinstance(step, Parked))
    if not isinstance(step, Dead):
        when = step.when if isinstance(step, RetryAt) else step.until
        longest_s = max(POLICY.max_retry_after_s, POLICY.look_again_s) + 1.2 * POLICY.schedule_s[-1]
        assert NOW < when <= NOW + timedelta(seconds=longest_s)
