"""The worker's consumer: what can't be used becomes a dead letter, before anything is begun with it, and events leave in groups.

Celery finds this class by its name: `worker_consumer` in celeryconfig.py. Its own consumer drops such messages, writes their
whole contents to the log, and ends the worker over some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import structlog
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.control import Panel, inspect_command
from kombu.exceptions import KombuError
from vine import promise

from qa_worker import bootstrap
from qa_worker.application.bury_message import Kept
from qa_worker.application.dead_letters import UnreadMessage
from qa_worker.application.unread_messages import UNREADABLE, Fault, fault_of
from qa_worker.messages import Queue
from qa_worker.producer import declared_queue

log = structlog.get_logger(__name__)
_CELERYS_LOG = get_logger(__name__)

_EVENTS_EVERY_S = 0.25
_GUARDED = "qa_worker.adapters.queue.guarded_redis:Transport"
_BAD_DATA = (KombuError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_NO_TASK = Fault(UNREADABLE, "It has no headers `task` and `id`, as messages of Celery's protocol 2 have.")
_NO_TIME = Fault(UNREADABLE, "Its header `eta` or `expires` is no time.")
_NOT_DECODED = Fault(UNREADABLE, "Its body can't be decoded as JSON.")


class Consumer(CeleryConsumer):
    """Celery's consumer with another idea of what to do with bad messages."""

    # What Celery's stubs leave out.
    strategies: Mapping[str, Any]
    connection_errors: tuple[type[BaseException], ...]
    call_soon_ack: Callable[..., object]
    _flush_events: Callable[[], None]
    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A thread of its own: a database that is slow must not stop the loop that takes messages and sends heartbeats.
        self._burying = ThreadPoolExecutor(1, thread_name_prefix="bury")

    def register_with_event_loop(self, hub: Any) -> None:
        """Events leave in groups: Celery's own way wakes the loop, and asks Redis, for each of the three of a message."""
        super().register_with_event_loop(hub)
        hub.call_repeatedly(_EVENTS_EVERY_S, self._flush_events)

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # nobody reads what it returns
        """Nothing: a timer sends them."""

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Messages come through a transport that survives what isn't one, where the broker is Redis."""
        on_redis = str(self.app.conf.broker_read_url).startswith(("redis", "valkey"))
        transport = _GUARDED if on_redis else None
        return self.ensure_connected(self.app.connection_for_read(heartbeat=heartbeat, transport=transport))

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], None]:
        """Look at each message first; the decoded body is kept in it, so that nothing is decoded twice."""
        handle = super().create_task_handler(promise)
        known = self.strategies

        def receive(message: Any) -> None:
            try:
                fault = _fault(message, known)
                if fault is None:
                    handle(message)
            except _BAD_DATA as error:
                fault = Fault(UNREADABLE, f"Celery can make no task of it ({type(error).__name__}).")
            if fault is not None:
                self._bury(message, fault)

        return receive

    def on_decode_error(self, message: Any, exc: BaseException) -> None:  # noqa: ARG002 - Celery's signature
        """The message is broken as the broker delivered it."""
        self._bury(message, _NOT_DECODED)

    def on_unknown_message(self, body: object, message: Any) -> None:  # noqa: ARG002 - Celery's signature
        """It is no message of ours."""
        self._bury(message, _NO_TASK)

    def on_unknown_task(self, body: object, message: Any, exc: BaseException) -> None:  # noqa: ARG002 - Celery's signature
        """Its task is unknown."""
        self._bury(message, fault_of(_task(message), None, known=()) or _NO_TASK)

    def on_invalid_task(self, body: object, message: Any, exc: BaseException) -> None:  # noqa: ARG002 - Celery's signature
        """Celery refuses it."""
        self._bury(message, Fault(UNREADABLE, f"Celery refuses it ({type(exc).__name__})."))

    def _bury(self, message: Any, fault: Fault) -> None:
        letters = bootstrap.worker().letters
        queue = str((message.delivery_info or {}).get("routing_key") or "")
        unread = letters.unread(queue=queue, task=_task(message), body=_body(message), fault=fault)
        self._burying.submit(letters.bury, unread).add_done_callback(lambda done: self._buried(done, unread, message))

    def _buried(self, done: Future[Kept], unread: UnreadMessage, message: Any) -> None:
        """Only what is kept is acknowledged, in the loop's own thread. The rest comes again when the broker is asked to."""
        error = done.exception()
        if error is not None:
            log.error("message_not_kept", queue=unread.queue, task=unread.task, exc_info=error)
            return
        log.warning(
            "message_buried", queue=unread.queue, task=unread.task, reason=unread.reason, kept=done.result().value
        )
        self.call_soon_ack(message.ack_log_error, _CELERYS_LOG, self.connection_errors)


_celerys_queues = Panel.data["active_queues"]


@inspect_command(name="active_queues")
def _queues_for_monitors(state: Any) -> list[dict[str, Any]]:
    """As Celery's own, and the dead-letter queue: Flower shows the lengths of those queues only that a worker names here."""
    return [*_celerys_queues(state), declared_queue(Queue.DEAD_LETTER).as_dict(recurse=True)]


def _fault(message: Any, known: Container[str]) -> Fault | None:
    """What is wrong with a message of Celery's protocol 2."""
    headers = message.headers
    if not isinstance(headers, dict) or not all(isinstance(headers.get(name), str) for name in ("task", "id")):
        return _NO_TASK
    if not all(map(_is_time, (headers.get("eta"), headers.get("expires")))):
        return _NO_TIME
    task = _task(message)
    if task not in known:
        return fault_of(task, None, known=())
    try:
        body = message.decode()
    except _BAD_DATA:
        return _NOT_DECODED
    return fault_of(task, body, known=known)


def _is_time(value: object) -> bool:
    if value is None:
        return True
    try:
        datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _task(message: Any) -> str:
    headers = message.headers if isinstance(message.headers, dict) else {}
    return str(headers.get("task") or "")


def _body(message: Any) -> bytes:
    body = message.body
    return body.encode(errors="replace") if isinstance(body, str) else bytes(body or b"")
