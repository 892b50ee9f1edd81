"""The queue `maintenance`: what beat asks for."""

from __future__ import annotations

from typing import Any

import structlog

from qa_worker import bootstrap
from qa_worker.celery_app import app
from qa_worker.messages import TaskName
from qa_worker.tasks.base import QaTask

log = structlog.get_logger(__name__)


@app.task(base=QaTask, name=TaskName.DISPATCH_WORK.value)
def dispatch_work(**_: Any) -> int:
    """Send what is due."""
    return bootstrap.worker().dispatch()


@app.task(base=QaTask, name=TaskName.RESCUE_STALLED.value)
def rescue_stalled(**_: Any) -> None:
    """Find what got stuck."""
    found = bootstrap.worker().rescue()
    if any((found.freed, found.buried, found.resent, found.admitted)):
        log.warning("rescued", freed=found.freed, buried=found.buried, resent=found.resent, admitted=found.admitted)
