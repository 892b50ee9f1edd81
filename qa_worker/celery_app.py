"""The Celery object: `celery -A qa_worker.celery_app worker -Q evaluate-call`, `celery -A qa_worker.celery_app beat`."""

from __future__ import annotations

from celery import Celery
from celery.signals import setup_logging

from qa_worker.observability import configure
from qa_worker.settings import settings

app = Celery(
    "qa_worker",
    include=[
        "qa_worker.tasks.backlog",
        "qa_worker.tasks.evaluate_call",
        "qa_worker.tasks.maintenance",
        "qa_worker.tasks.raise_alerts",
        "qa_worker.tasks.run_scenario",
        "qa_worker.tasks.send_alert",
    ],
)
app.config_from_object("celeryconfig")


@setup_logging.connect(weak=False)
def _log_as_json(**_: object) -> None:
    configure(level=settings().log_level)
