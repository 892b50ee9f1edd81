"""The queue `dead-letter`, on Redis and on RabbitMQ: nobody consumes it, beat keeps it in step with the table.

Only what both brokers do alike is used: publish, the queue's length, get one message, acknowledge it, put it back.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from kombu import Connection, Message
from kombu import Producer as KombuProducer

from qa_worker.adapters.queue.guarded_redis import Transport
from qa_worker.adapters.queue.notices import from_json, to_json
from qa_worker.application.dead_letters import Notice, UnreadMessage
from qa_worker.application.ports import Clock
from qa_worker.application.unread_messages import UNREADABLE, Fault, unread_message
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.messages import Queue
from qa_worker.producer import broker_errors, connect, declared_queue

_NAME = Queue.DEAD_LETTER.value
_FOREIGN = Fault(UNREADABLE, "Something else has put it on the dead-letter queue.")


class BrokerLetterQueue:
    """Implements the port `LetterQueue`. Connects with its first use; threads may share one."""

    def __init__(self, broker_url: str, clock: Clock) -> None:
        self._broker_url = broker_url
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = self._new_connection()
        self._errors = broker_errors(self._connection)

    def publish(self, notices: Sequence[Notice]) -> None:
        """See the port."""
        self._publish([to_json(notice) for notice in notices])

    def keep(self, message: UnreadMessage) -> None:
        """See the port."""
        unread = {**asdict(message), "ref_id": str(message.ref_id), "died_at": message.died_at.isoformat()}
        shown = {"letter_id": None, "kind": "message", "reason": message.reason, "queue": message.queue}
        self._publish([{**shown, "unread": unread}])

    def depth(self) -> int:
        """See the port."""
        with self._channel() as channel:
            return int(channel.queue_declare(_NAME, durable=True).message_count)

    def take(self, limit: int, settle: Callable[[Sequence[Notice | UnreadMessage]], None]) -> int:
        """See the port."""
        with self._channel() as channel:
            channel.queue_declare(_NAME, durable=True)
            taken: list[Message] = []
            try:
                while len(taken) < limit and (message := channel.basic_get(_NAME)) is not None:
                    taken.append(message)
                if taken:
                    settle([self._read(message) for message in taken])
            except BaseException:
                for message in reversed(taken):
                    message.requeue()
                raise
            for message in taken:
                message.ack()
        return len(taken)

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.release()

    def _new_connection(self) -> Connection:
        on_redis = self._broker_url.startswith(("redis", "valkey"))
        return connect(self._broker_url, transport=Transport if on_redis else None)

    def _publish(self, bodies: Sequence[dict[str, Any]]) -> None:
        # A connection that broke while it idled is found broken now. What lies there twice is harmless.
        with suppress(StoreUnavailable):
            return self._publish_once(bodies)
        return self._publish_once(bodies)

    def _publish_once(self, bodies: Sequence[dict[str, Any]]) -> None:
        with self._channel() as channel:
            producer = KombuProducer(channel)
            for body in bodies:
                producer.publish(
                    body,
                    routing_key=_NAME,
                    declare=[declared_queue(Queue.DEAD_LETTER)],
                    serializer="json",
                    delivery_mode=2,
                )

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        with self._lock:
            try:
                # A channel for each use: one that an error has closed is never met again.
                with self._connection.channel() as channel:
                    yield channel
            except self._errors as error:
                self._connection.release()
                # One that was released gives no channel any more.
                self._connection = self._new_connection()
                raise StoreUnavailable(f"the broker can't be reached: {type(error).__name__}") from error

    def _read(self, message: Message) -> Notice | UnreadMessage:
        """What lies there; also what a broker's own dead-lettering, or a person, has put there."""
        raw: Any = message.body
        body = raw.encode() if isinstance(raw, str) else bytes(raw or b"")
        try:
            read = json.loads(body)
            if read.get("letter_id") is None:
                return _kept(read["unread"])
            return from_json(read)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            headers = message.headers or {}
            task = str(headers.get("task") or "")
            queue = str(headers.get("x-first-death-queue") or _NAME)
            return unread_message(queue=queue, task=task, body=body, fault=_FOREIGN, at=self._clock.now())


def _kept(unread: dict[str, Any]) -> UnreadMessage:
    known = {**unread, "ref_id": uuid.UUID(unread["ref_id"]), "died_at": datetime.fromisoformat(unread["died_at"])}
    return UnreadMessage(**known)
