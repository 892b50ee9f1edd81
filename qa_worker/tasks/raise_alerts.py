"""What makes alerts of matches, on the queue of those who send them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qa_worker import bootstrap
from qa_worker.celery_app import app
from qa_worker.messages import TaskName
from qa_worker.tasks.base import RETRIED, QaTask, settle


@app.task(base=QaTask, name=TaskName.RAISE_ALERTS.value, **RETRIED)
def raise_alerts(*, rule_id: str, agent_id: str | None = None, **_: Any) -> str:
    """Look at what matched one rule for one agent."""
    agent = None if agent_id is None else UUID(agent_id)
    return settle(bootstrap.worker().alerts.raise_for(UUID(rule_id), agent))
