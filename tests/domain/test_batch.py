from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from qa_worker.domain.batch import (
    Batch,
    ProviderBatch,
    failed,
    is_lost,
    is_refused_for_good,
    surely_not_made,
    the_same,
    wait_s,
)
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.retry import RetryPolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LOST = Batch(
    id=uuid.UUID(int=1),
    token=uuid.UUID(int=2),
    model="claude-haiku-5-5",
    request_count=10,
    began_at=NOW,
    unsure_since=NOW + timedelta(minutes=1),
)
POLICY = RetryPolicy(schedule_s=(5, 60, 600), max_attempts=3, look_again_s=900)


def listed(name: str = "a", *, minutes: float = 0.5, requests: int = 10) -> ProviderBatch:
    return ProviderBatch(name, NOW + timedelta(minutes=minutes), requests, ended=False)


def test_a_lost_batch_is_the_unknown_one_of_its_size_and_time() -> None:
    others = [listed("other size", requests=9), listed("older", minutes=-6), listed("newer", minutes=7)]
    assert the_same(LOST, [*others, listed("ours")], known=()) == listed("ours")
    assert the_same(LOST, others, known=()) is None


@pytest.mark.parametrize("minutes", [-5, 6])
def test_clocks_may_be_five_minutes_apart(minutes: float) -> None:
    assert the_same(LOST, [listed(minutes=minutes)], known=()) is not None


def test_of_several_the_oldest_that_belongs_to_nobody_is_taken() -> None:
    several = [listed("c", minutes=3), listed("a", minutes=1), listed("b", minutes=2)]
    assert the_same(LOST, several, known=()) == several[1]
    assert the_same(LOST, several, known={"a"}) == several[2]


def test_a_batch_that_was_never_sent_is_nobodys() -> None:
    assert the_same(replace(LOST, began_at=None), [listed()], known=()) is None


@pytest.mark.parametrize(
    ("kind", "code", "sure"),
    [
        (FailureKind.TRANSIENT, "timeout", False),
        (FailureKind.TRANSIENT, "read_timeout", False),
        (FailureKind.TRANSIENT, "connection", False),
        (FailureKind.TRANSIENT, "bad_response", False),
        (FailureKind.TRANSIENT, "http_500", False),
        (FailureKind.TRANSIENT, "http_504", False),
        (FailureKind.TRANSIENT, "http_408", False),
        (FailureKind.REJECTED, "sdk", False),
        (FailureKind.TRANSIENT, "connect_timeout", True),
        (FailureKind.OVERLOADED, "http_529", True),
        (FailureKind.RATE_LIMITED, "http_429", True),
        (FailureKind.SPEND_CAP, "http_402", True),
        (FailureKind.BLOCKED, "http_401", True),
        (FailureKind.HELD, "breaker_open", True),
        (FailureKind.REJECTED, "http_400", True),
    ],
)
def test_only_a_refusal_or_an_unreached_server_proves_that_nothing_was_made(
    kind: FailureKind, code: str, *, sure: bool
) -> None:
    assert surely_not_made(Failure(kind, code, "")) is sure


@pytest.mark.parametrize(
    ("kind", "code", "for_good"),
    [
        (FailureKind.REJECTED, "http_400", True),
        (FailureKind.REJECTED, "http_413", True),
        (FailureKind.BLOCKED, "http_404", True),
        (FailureKind.REJECTED, "http_405", True),
        (FailureKind.TRANSIENT, "http_501", True),
        (FailureKind.TRANSIENT, "http_500", False),
        (FailureKind.BLOCKED, "http_401", False),
        (FailureKind.SPEND_CAP, "http_400", False),
        (FailureKind.REJECTED, "sdk", False),
    ],
)
def test_a_batch_is_given_up_where_sending_it_again_is_no_use(kind: FailureKind, code: str, *, for_good: bool) -> None:
    assert is_refused_for_good(Failure(kind, code, "")) is for_good


@pytest.mark.parametrize(
    ("kind", "code"),
    [(FailureKind.BLOCKED, "http_404"), (FailureKind.REJECTED, "http_405"), (FailureKind.TRANSIENT, "http_501")],
)
def test_a_batch_is_lost_when_nobody_has_known_it_for_a_while(kind: FailureKind, code: str) -> None:
    gone = Failure(kind, code, "")
    assert not is_lost(replace(LOST, failures=3), gone, now=NOW)
    assert is_lost(replace(LOST, failures=4), gone, now=NOW)
    assert not is_lost(replace(LOST, failures=9), Failure(FailureKind.BLOCKED, "http_401", ""), now=NOW)


def test_a_batch_is_lost_when_its_results_are_not_kept_any_longer() -> None:
    sent, refused = replace(LOST, submitted_at=NOW), Failure(FailureKind.BLOCKED, "http_401", "")
    assert not is_lost(sent, refused, now=NOW + timedelta(days=28))
    assert is_lost(sent, refused, now=NOW + timedelta(days=30))


def _waits(failure: Failure, times: int) -> list[float]:
    batch, waits = LOST, []
    for _ in range(times):
        batch = failed(batch, failure)
        waits.append(wait_s(POLICY, batch, now=NOW, jitter=0.5))
    return waits


def test_faults_are_waited_out_by_the_schedule_without_an_end() -> None:
    assert _waits(Failure(FailureKind.TRANSIENT, "http_500", ""), 5) == [5, 60, 600, 600, 600]


def test_a_provider_that_says_when_is_not_asked_before() -> None:
    limited = Failure(FailureKind.RATE_LIMITED, "http_429", "", retry_after_s=300)
    assert all(wait > 300 for wait in _waits(limited, 3))


def test_what_somebody_must_mend_is_looked_at_now_and_then() -> None:
    for kind in (FailureKind.BLOCKED, FailureKind.SPEND_CAP):
        assert _waits(Failure(kind, "http_401", ""), 2) == [990, 990]
    assert _waits(Failure(FailureKind.REJECTED, "http_400", ""), 1) == [900]


def test_a_batch_without_a_fault_waits_for_nothing() -> None:
    assert wait_s(POLICY, LOST, now=NOW, jitter=0.5) == 0
