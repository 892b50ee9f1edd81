"""The queues `evaluate-call` and `backlog`, which one kind of worker takes, live calls first."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qa_worker import bootstrap
from qa_worker.application.evaluate_calls import evaluate_calls as grade_many
from qa_worker.celery_app import app
from qa_worker.domain.call import CallId
from qa_worker.messages import TaskName
from qa_worker.tasks.base import RETRIED, QaTask, settle

_NONE: list[str] = []


@app.task(base=QaTask, name=TaskName.EVALUATE_CALL.value, **RETRIED)
def evaluate_call(*, call_id: str, evaluation_id: str | None = None, **_: Any) -> str:
    """Grade one call."""
    chosen = None if evaluation_id is None else UUID(evaluation_id)
    return settle(bootstrap.worker().evaluate(CallId(UUID(call_id)), chosen))


@app.task(base=QaTask, name=TaskName.EVALUATE_CALLS.value, **RETRIED)
def evaluate_calls(*, evaluation_ids: list[str] = _NONE, call_ids: list[str] = _NONE, **_: Any) -> int:
    """Grade calls that can wait, all at the same time."""
    outcomes = grade_many(
        evaluation_ids=[UUID(one) for one in evaluation_ids],
        call_ids=[CallId(UUID(one)) for one in call_ids],
        tools=bootstrap.worker().evaluating,
    )
    for outcome in outcomes:
        settle(outcome)
    return len(outcomes)
