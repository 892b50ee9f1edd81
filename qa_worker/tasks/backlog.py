"""Backlogs and batches: what beat asks for on schedules of their own, on the queue `maintenance`."""

from __future__ import annotations

from typing import Any

import structlog

from qa_worker import bootstrap
from qa_worker.celery_app import app
from qa_worker.messages import TaskName
from qa_worker.tasks.base import QaTask

log = structlog.get_logger(__name__)


@app.task(base=QaTask, name=TaskName.ADVANCE_BATCHES.value)
def advance_batches(**_: Any) -> int:
    """Go on with batches."""
    advanced = bootstrap.worker().backlog.advance()
    if advanced.stuck:
        log.error("batches_without_key", waiting=advanced.stuck)
    return advanced.steps


@app.task(base=QaTask, name=TaskName.GRADE_BACKLOG.value)
def grade_backlog(**_: Any) -> int:
    """Submit everything that has no verdict under its rubric version."""
    submitted = bootstrap.worker().backlog.submit()
    log.info("backlog_submitted", calls=submitted.calls, more=submitted.more)
    return submitted.calls
