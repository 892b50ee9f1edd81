"""The queue `maintenance`: what beat asks for."""

from __future__ import annotations

from typing import Any

import structlog

from qa_worker import bootstrap
from qa_worker.application.dispatch_work import dispatch_work as dispatch
from qa_worker.application.rescue_stalled import rescue_stalled as rescue
from qa_worker.celery_app import app
from qa_worker.messages import Queue, TaskName
from qa_worker.tasks.base import QaTask

log = structlog.get_logger(__name__)


@app.task(base=QaTask, name=TaskName.DISPATCH_WORK.value, queue=Queue.MAINTENANCE.value)
def dispatch_work(**_: Any) -> int:
    """Send what is due."""
    worker = bootstrap.worker()
    return dispatch(uow=worker.uow, in_flight_limit=worker.in_flight_limit)


@app.task(base=QaTask, name=TaskName.RESCUE_STALLED.value, queue=Queue.MAINTENANCE.value)
def rescue_stalled(**_: Any) -> None:
    """Find what got stuck."""
    worker = bootstrap.worker()
    found = rescue(uow=worker.uow, grading=worker.grading, resend_after_s=worker.resend_after_s, waiting=worker.waiting)
    if found.freed or found.buried or found.resent or found.admitted:
        log.warning("rescued", freed=found.freed, buried=found.buried, resent=found.resent, admitted=found.admitted)
