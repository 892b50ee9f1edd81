"""The public API for other programs: put one message on one queue.

    from qa_worker.producer import Producer

    producer = Producer("redis://localhost:6379/0")
    producer.call_finished(call_id)

Imports the broker client (kombu) only: neither Celery nor SQLAlchemy nor the SDK, so that a backend pays nothing for it.
The call must be stored before (through the HTTP API, `qa-worker evaluate`, or as a row of `calls`): the row is the
truth, the message is a nudge, and a lost message is found again by the rescue sweep.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from kombu import Connection, Exchange
from kombu import Producer as KombuProducer
from kombu import Queue as KombuQueue
from kombu.exceptions import KombuError, OperationalError

from qa_worker import messages
from qa_worker.domain.errors import StoreUnavailable

_BATCH = 500
_RETRY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
_TRANSPORT = {"socket_connect_timeout": 2.0, "socket_timeout": 5.0, "socket_keepalive": True}


class Producer:
    """A connection to the broker that puts messages on queues. Threads may share one; make it once per process.

    Args:
        broker_url: `redis://`, `rediss://` or `amqp://`.

    """

    def __init__(self, broker_url: str) -> None:
        self._connection = connect(broker_url)
        self._errors = broker_errors(self._connection)
        self._lock = threading.Lock()
        self._producer: KombuProducer | None = None
        self._origin = f"{os.getpid()}@{socket.gethostname()}"

    def call_finished(self, call_id: uuid.UUID | str, *, evaluation_id: uuid.UUID | str | None = None) -> str:
        """Ask for the evaluation of a stored call.

        Args:
            call_id: the id of its row in `calls`.
            evaluation_id: one certain evaluation of it, where it is graded under more than one rubric.

        Returns:
            The id of the message, as Flower shows it.

        Raises:
            ValueError: an id is no UUID.
            StoreUnavailable: the broker can't be reached. Nothing is lost: the call's row is found by the rescue sweep.

        """
        chosen = None if evaluation_id is None else uuid.UUID(str(evaluation_id))
        return self.send([messages.evaluate_call(uuid.UUID(str(call_id)), chosen)])[0]

    def calls_finished(self, call_ids: Iterable[uuid.UUID | str], *, can_wait: bool = False) -> list[str]:
        """Ask for the evaluation of many stored calls, in one round trip; returns the ids of the messages.

        With `can_wait` one message carries up to `messages.BULK` of them, and workers take it when no live call waits.
        Raises ValueError and StoreUnavailable like `call_finished`.
        """
        ids = [uuid.UUID(str(call_id)) for call_id in call_ids]
        if not can_wait:
            return self.send([messages.evaluate_call(call_id) for call_id in ids])
        parts = [ids[start : start + messages.BULK] for start in range(0, len(ids), messages.BULK)]
        return self.send([messages.finished_calls(part) for part in parts])

    def send(self, batch: Iterable[messages.Message]) -> list[str]:
        """Put messages on their queues, in order; returns their ids. Raises StoreUnavailable like `call_finished`."""
        leaving = list(batch)
        with self._lock:
            if len(leaving) > 1:
                # A connection that broke while it idled is found broken now. Sending all of them again is safe:
                # a message that comes twice changes nothing.
                with suppress(StoreUnavailable), self._broker_errors():
                    return self._publish_all(leaving)
            with self._broker_errors():
                return self._publish_all(leaving)

    def queue_lengths(self) -> dict[str, int]:
        """Messages waiting in each queue. Raises StoreUnavailable like `call_finished`."""
        with self._lock, self._broker_errors():
            return {queue.value: self._length(queue) for queue in messages.Queue}

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._drop_connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _drop_connection(self) -> None:
        self._producer = None
        self._connection.release()

    def _open(self) -> KombuProducer:
        if self._producer is None:
            self._producer = KombuProducer(self._connection)
        return self._producer

    def _length(self, queue: messages.Queue) -> int:
        channel: Any = self._connection.channel()  # kombu's stubs don't know queue_declare
        with channel:
            declared = channel.queue_declare(queue.value, durable=True)
        return int(declared.message_count)

    @contextmanager
    def _broker_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            self._drop_connection()
            raise StoreUnavailable(f"the broker can't be reached: {type(error).__name__}") from error

    def _publish_all(self, leaving: Sequence[messages.Message]) -> list[str]:
        producer: Any = self._open()  # kombu's stubs don't know batch
        if len(leaving) == 1 or not producer.supports_batch_publish:
            return [self._publish(message) for message in leaving]
        with producer.batch(max_size=_BATCH):
            return [self._publish(message) for message in leaving]

    def _publish(self, message: messages.Message) -> str:
        task_id = str(uuid.uuid4())
        # Celery's message protocol 2 (docs/internals/protocol), written out so that no Celery is needed here.
        self._open().publish(
            ([], message.kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}),
            routing_key=message.queue.value,
            declare=[declared_queue(message.queue)],
            serializer="json",
            delivery_mode=2,
            correlation_id=task_id,
            retry=True,
            retry_policy=_RETRY,
            headers={
                "lang": "py",
                "task": message.task.value,
                "id": task_id,
                "root_id": task_id,
                "parent_id": None,
                "group": None,
                "retries": 0,
                "eta": None,
                "expires": None,
                "timelimit": [None, None],
                "argsrepr": "()",
                "kwargsrepr": repr(message.kwargs),
                "origin": self._origin,
                "ignore_result": True,
            },
        )
        return task_id


def connect(broker_url: str, *, transport: Any = None) -> Connection:
    """A connection that finds out within seconds that the broker is away; nothing is opened yet.

    `transport` is another class than kombu's own for this URL.
    """
    options = _TRANSPORT if broker_url.startswith(("redis", "valkey")) else {"confirm_publish": True}
    return Connection(broker_url, connect_timeout=2.0, transport_options=options, transport=transport)


def broker_errors(connection: Connection) -> tuple[type[BaseException], ...]:
    """What is raised where the broker is away."""
    return (OperationalError, KombuError, OSError, *connection.connection_errors, *connection.channel_errors)


def declared_queue(queue: messages.Queue) -> KombuQueue:
    """The queue as producers and workers declare it: durable, on the default exchange, which routes by name."""
    return KombuQueue(queue.value, exchange=Exchange(""), routing_key=queue.value, durable=True)
