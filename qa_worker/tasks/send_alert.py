"""The queue `send-alert`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qa_worker import bootstrap
from qa_worker.celery_app import app
from qa_worker.messages import TaskName
from qa_worker.tasks.base import RETRIED, QaTask, settle


@app.task(base=QaTask, name=TaskName.SEND_ALERT.value, **RETRIED)
def send_alert(*, delivery_id: str, **_: Any) -> str:
    """Send one alert to one endpoint, and what waits there behind it."""
    outcomes = bootstrap.worker().sending.send(UUID(delivery_id))
    return ", ".join(settle(outcome) for outcome in outcomes)
