"""What every task shares: log context, and the one place that knows what Celery does with an outcome."""

from __future__ import annotations

import gc
from typing import Any, assert_never

import structlog
from celery import Task
from celery.exceptions import TaskPredicate
from celery.signals import worker_init, worker_shutdown

from qa_worker import bootstrap
from qa_worker.domain.errors import QaError, StoreUnavailable
from qa_worker.domain.outcome import Dead, Done, Outcome, Parked, RetryAt, Skipped

log = structlog.get_logger(__name__)

# Only for faults of the infrastructure itself, where no row could be written. 5 retries of 1, 2, 4, 8, 16 s with full
# jitter end within 31 s, far below the visibility timeout; whatever is left then, the rescue sweep finds in the row.
RETRIED: dict[str, Any] = {
    "autoretry_for": (StoreUnavailable,),
    "max_retries": 5,
    "retry_backoff": 1,
    "retry_backoff_max": 30,
    "retry_jitter": True,
}


class TaskFault(QaError):
    """An unexpected error ended a task. Its type is the message; the worker's log has its place."""


class QaTask(Task[Any, Any]):
    """Binds ids to every log line of a task and logs what was unexpected with its place, never silently."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task with its log context."""
        ids = {name: value for name, value in kwargs.items() if name.endswith("_id")}
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            task=self.name, task_id=self.request.id, celery_retry=self.request.retries, **ids
        )
        try:
            return super().__call__(*args, **kwargs)
        except (TaskPredicate, StoreUnavailable):
            raise
        except Exception as error:
            # Celery sends an exception's text and traceback to Flower, and a driver's text may quote a transcript.
            log.exception("task_failed")
            raise TaskFault(type(error).__name__) from None

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Nothing that ends a task is silent."""
        if not isinstance(exc, TaskFault):
            log.error("task_failed", task=self.name, task_id=task_id, exc_info=exc)

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 - Celery's signature
        """A fault of the infrastructure: the message comes again in a moment."""
        log.warning("task_retried", task=self.name, task_id=task_id, reason=type(exc).__name__)


def settle(outcome: Outcome) -> str:
    """Translate an outcome: the row already says what happens next, so Celery only acknowledges the message."""
    match outcome:
        case Done(detail):
            log.info("done", detail=detail)
            return f"done: {detail}"
        case Skipped(reason):
            log.info("skipped", reason=reason)
            return f"skipped: {reason}"
        case RetryAt(when, reason):
            log.warning("retry_at", when=when.isoformat(), reason=reason)
            return f"retry: {reason}"
        case Parked(until, reason):
            log.info("parked", until=until.isoformat(), reason=reason)
            return f"parked: {reason}"
        case Dead(reason):
            log.error("dead", reason=reason)
            return f"dead: {reason}"
        case _:
            assert_never(outcome)


@worker_init.connect(weak=False)
def _build_once(sender: Any, **_: object) -> None:
    slots = sender.concurrency if isinstance(sender.concurrency, int) else None  # "auto" is decided later
    bootstrap.start_worker(bootstrap.Serves(frozenset(sender.app.amqp.queues.consume_from), slots))
    # What is there by now stays: 100 MB of libraries that the collector need not look through again and again.
    gc.collect()
    gc.freeze()


@worker_shutdown.connect(weak=False)
def _close(**_: object) -> None:
    bootstrap.close_worker()
