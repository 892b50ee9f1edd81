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


@app.task(base=QaTask, name=TaskName.DISPATCH_DELIVERIES.value)
def dispatch_deliveries(**_: Any) -> int:
    """Send the alerts that are due."""
    return bootstrap.worker().sending.dispatch()


@app.task(base=QaTask, name=TaskName.RESCUE_DELIVERIES.value)
def rescue_deliveries(**_: Any) -> None:
    """Find the alerts that got stuck."""
    found = bootstrap.worker().sending.rescue()
    if any((found.freed, found.buried, found.resent)):
        log.warning("deliveries_rescued", freed=found.freed, buried=found.buried, resent=found.resent)


@app.task(base=QaTask, name=TaskName.RAISE_DUE_ALERTS.value)
def raise_due_alerts(**_: Any) -> int:
    """Fold what was left over, send digests that are due, end incidents."""
    return bootstrap.worker().alerts.raise_due()


@app.task(base=QaTask, name=TaskName.WATCH_HEALTH.value)
def watch_health(**_: Any) -> int:
    """Look at rates, budgets, queues and the breaker."""
    return bootstrap.worker().alerts.watch()


@app.task(base=QaTask, name=TaskName.RECONCILE_DEAD_LETTERS.value)
def reconcile_dead_letters(**_: Any) -> None:
    """Show dead letters on their queue."""
    done = bootstrap.worker().letters.reconcile()
    if done.found or done.lost:
        log.warning("dead_letters_reconciled", found=done.found, lost=done.lost)


@app.task(base=QaTask, name=TaskName.FORGET_OLD_ALERTS.value)
def forget_old_alerts(**_: Any) -> int:
    """Delete alerts that are too old."""
    return bootstrap.worker().alerts.forget()


@app.task(base=QaTask, name=TaskName.DISPATCH_RUNS.value)
def dispatch_runs(**_: Any) -> int:
    """Send the runs that are due, cancel those of cancelled suites."""
    return bootstrap.worker().scenarios.dispatch()


@app.task(base=QaTask, name=TaskName.RESCUE_RUNS.value)
def rescue_runs(**_: Any) -> None:
    """Find the runs that got stuck."""
    found = bootstrap.worker().scenarios.rescue()
    if any((found.freed, found.buried, found.resent)):
        log.warning("runs_rescued", freed=found.freed, buried=found.buried, resent=found.resent)
