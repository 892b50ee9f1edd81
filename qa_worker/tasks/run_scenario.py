"""The queue `run-scenario`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qa_worker import bootstrap
from qa_worker.celery_app import app
from qa_worker.messages import TaskName
from qa_worker.tasks.base import RETRIED, QaTask, settle


@app.task(base=QaTask, name=TaskName.RUN_SCENARIO.value, **RETRIED)
def run_scenario(*, run_id: str, **_: Any) -> str:
    """Play one run, or go on with it."""
    return settle(bootstrap.worker().scenarios.play(UUID(run_id)))
