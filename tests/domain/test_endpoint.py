"""How an endpoint that fails is treated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.endpoint import (
    Health,
    HealthRules,
    after_failure,
    is_given_up,
    is_slow,
    patience_s,
    room,
    why_not_sent,
)
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.retry import RetryPolicy, delay_s
from qa_worker.domain.work import WorkState, WorkStatus

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
RULES = HealthRules(in_flight=4, threshold=3, pause_s=10, max_pause_s=60, off_after_s=1000, off_after_failures=5)
BROKEN = Failure(FailureKind.TRANSIENT, "http_500", "It failed.")
REFUSED = Failure(FailureKind.REJECTED, "http_404", "Not here.")


def _fail(health: Health, failure: Failure = BROKEN, *, at: datetime = NOW) -> Health:
    return after_failure(health, failure, rules=RULES, now=at, max_wait_s=3600)


def _pause_s(health: Health, *, at: datetime = NOW) -> float:
    return 0.0 if health.paused_until is None else (health.paused_until - at).total_seconds()


def test_pauses_begin_at_the_threshold_double_and_are_bounded() -> None:
    health, now, pauses = Health(), NOW, []
    for _ in range(8):
        health = _fail(health, at=now)
        pauses.append(_pause_s(health, at=now))
        now += timedelta(seconds=pauses[-1])

    assert pauses == [0, 0, 10, 20, 40, 60, 60, 60]
    assert health.failing_since == NOW


def test_an_endpoint_that_failed_too_often_gets_one_probe() -> None:
    assert room(Health(took_s=0.1), RULES) == 4
    assert room(Health(NOW, 2, took_s=0.1), RULES) == 4
    assert room(Health(NOW, 3, took_s=0.1), RULES) == 1


def test_a_slow_endpoint_and_one_that_nobody_knows_yet_get_one_at_a_time() -> None:
    paces = (None, 0.0, 2.0, 2.1, 9.9)

    assert [room(Health(took_s=took_s), RULES) for took_s in paces] == [1, 4, 4, 1, 1]
    assert [is_slow(Health(took_s=took_s), RULES) for took_s in paces] == [False, False, False, True, True]


def test_what_was_under_way_when_the_pause_began_makes_it_no_longer() -> None:
    paused = _fail(_fail(_fail(Health())))

    assert _fail(paused, at=NOW + timedelta(seconds=5)) == paused


def test_refused_alerts_are_counted_and_pause_nothing() -> None:
    health = Health()
    for _ in range(6):
        health = _fail(health, REFUSED)

    assert (health.consecutive_failures, health.paused_until) == (6, None)


@pytest.mark.parametrize(("asked_s", "pause_s"), [(None, 0), (0, 0), (30, 30), (-5, 0), (10**9, 3600)])
def test_a_receiver_may_ask_for_a_pause_within_bounds(asked_s: float | None, pause_s: float) -> None:
    busy = Failure(FailureKind.RATE_LIMITED, "http_429", "Fewer.", retry_after_s=asked_s)

    assert _pause_s(_fail(Health(), busy)) == pause_s


def test_an_endpoint_is_given_up_after_long_enough_and_often_enough() -> None:
    since = NOW - timedelta(seconds=1000)

    assert is_given_up(Health(since, 5), rules=RULES, now=NOW)
    assert not is_given_up(Health(since, 4), rules=RULES, now=NOW)
    assert not is_given_up(Health(since + timedelta(seconds=1), 50), rules=RULES, now=NOW)
    assert not is_given_up(Health(), rules=RULES, now=NOW)


@pytest.mark.parametrize(
    ("schedule_s", "max_attempts", "expected"),
    [
        ((5, 30, 120, 600, 1800, 7200), 7, 1.2 * 9755 + 7 * 10 + 60),
        ((5, 30), 5, 1.2 * (5 + 30 + 30 + 30) + 5 * 10 + 60),
        ((5, 30), 1, 10 + 60),
    ],
)
def test_patience_is_what_all_tries_can_take(schedule_s: tuple[float, ...], max_attempts: int, expected: float) -> None:
    assert patience_s(RetryPolicy(schedule_s, max_attempts), RULES, try_s=10) == pytest.approx(expected)


@given(
    st.lists(st.floats(0.1, 7200), min_size=1, max_size=8), st.integers(1, 10), st.lists(st.floats(0, 1), min_size=10)
)
def test_no_jitter_makes_the_last_try_come_after_patience_has_ended(
    schedule_s: list[float], max_attempts: int, jitters: list[float]
) -> None:
    policy = RetryPolicy(tuple(schedule_s), max_attempts)
    last_try_s = sum(10 + delay_s(policy, attempt=one, jitter=jitters[one - 1]) for one in range(1, max_attempts))

    assert last_try_s + RULES.max_pause_s < patience_s(policy, RULES, try_s=10)


@pytest.mark.parametrize(
    ("state", "due_in_s", "why"),
    [
        (WorkState.DONE, 0, "already delivered"),
        (WorkState.DEAD, 0, "given up on before"),
        (WorkState.RUNNING, 0, "being sent by another worker"),
        (WorkState.PENDING, 9, "waiting for its next attempt"),
        (WorkState.PENDING, -9, "claimed by another worker"),
        (WorkState.QUEUED, 0, "claimed by another worker"),
    ],
)
def test_a_message_that_has_nothing_to_do_says_why(state: WorkState, due_in_s: float, why: str) -> None:
    status = WorkStatus(state, 1, 3, NOW + timedelta(seconds=due_in_s), "")

    assert why_not_sent(status, now=NOW) == why
