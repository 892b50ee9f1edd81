"""What Celery does with each outcome, and which faults it retries by itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import celeryconfig
from qa_worker.celery_app import app
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.outcome import Dead, Done, Outcome, Parked, RetryAt, Skipped
from qa_worker.settings import Settings
from qa_worker.tasks.base import RETRIED, QaTask, TaskFault, settle
from qa_worker.tasks.evaluate_call import evaluate_call

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Done("pass"), "done: pass"),
        (Skipped("already evaluated"), "skipped: already evaluated"),
        (RetryAt(NOW, "http_529"), "retry: http_529"),
        (Parked(NOW, "rate_limit"), "parked: rate_limit"),
        (Dead("refused"), "dead: refused"),
    ],
)
def test_every_outcome_acknowledges_the_message_and_says_what_happened(outcome: Outcome, told: str) -> None:
    assert settle(outcome) == told


def test_celery_itself_retries_only_what_left_no_row() -> None:
    assert evaluate_call.autoretry_for == (StoreUnavailable,)
    assert evaluate_call.retry_backoff
    assert evaluate_call.retry_jitter


def test_celerys_own_retries_end_well_before_the_message_becomes_visible_again() -> None:
    longest_s = sum(
        min(RETRIED["retry_backoff"] * 2**retry, RETRIED["retry_backoff_max"])
        for retry in range(RETRIED["max_retries"])
    )
    visible_again_s = celeryconfig.broker_transport_options["visibility_timeout"]

    assert isinstance(visible_again_s, int)
    assert longest_s < visible_again_s / 4


def test_the_longest_call_is_shorter_than_its_lease_and_that_than_the_visibility_timeout() -> None:
    chosen = Settings()
    visible_again_s = celeryconfig.broker_transport_options["visibility_timeout"]

    assert chosen.judge_deadline_s < chosen.lease_s
    assert isinstance(visible_again_s, int)
    assert chosen.lease_s < visible_again_s


def test_nothing_in_a_message_can_run() -> None:
    assert celeryconfig.accept_content == ["json"]
    assert celeryconfig.result_backend is None


@app.task(base=QaTask, name="test-fault")
def _faulty(**_: object) -> None:
    raise ValueError("Wilhelmina 555-0142")


def test_what_reaches_flower_of_an_unexpected_error_is_its_type() -> None:
    app.finalize()

    ended = app.tasks["test-fault"].apply()

    assert isinstance(ended.result, TaskFault)
    assert str(ended.result) == "ValueError"
    assert "Wilhelmina" not in str(ended.traceback)
