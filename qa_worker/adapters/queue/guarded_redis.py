"""kombu's Redis transport for workers, except that what isn't a message ends no worker, and that it takes and settles in groups.

Whoever can reach Redis can push anything on a queue; a backend that pushes bare JSON is an easy mistake. kombu 5.7 takes it
off the queue and raises, Celery 5.7 then ends the worker, and the message is gone (measured). Here it is handed on as a
message that nobody can read, and becomes a dead letter.

kombu asks Redis three times for each message, and makes a client object for each question: half of a worker's CPU where a
message is one call (measured). Here messages that wait already are taken with the first one, those taken together are
noted together, and what was settled within 50 ms is taken off the list at once. A worker that dies in between leaves
messages that come again, which costs one query each.

Kombu finds this class by its name, which `qa_worker.tasks.consumer` gives for the connection that messages come through. As
Celery's `broker_transport` it would become part of the broker's URL, which Flower then doesn't understand.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

TOGETHER = 20
"""So many messages are taken from Redis at a time. A worker killed at that moment loses those; the sweep sends them again."""
SETTLED_EVERY_S = 0.05


class QoS(redis.QoS):
    """What was taken and not settled yet; an event loop has it written in groups."""

    # What kombu's stubs leave out.
    channel: Any
    unacked_key: str
    unacked_index_key: str
    _quick_append: Callable[[str, Any], None]
    _quick_ack: Callable[[str], None]
    _dirty: set[str]
    _flush: Callable[[], None]
    can_consume_max_estimate: Callable[[], Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._noted: set[str] = set()
        self._settled: list[str] = []

    def note(self, payloads: list[dict[str, Any]]) -> None:
        """Write these messages down as taken, before anything is begun with them."""
        now = time.time()
        places = {payload["properties"]["delivery_tag"]: payload for payload in payloads}
        with self.pipe_or_acquire() as pipe:
            pipe.zadd(self.unacked_index_key, dict.fromkeys(places, now))
            pipe.hset(self.unacked_key, mapping={tag: _taken(payload) for tag, payload in places.items()})
            pipe.execute()
        self._noted.update(places)

    def append(self, message: Any, delivery_tag: str) -> None:
        """As kombu's, unless it was noted with others."""
        if delivery_tag not in self._noted:
            super().append(message, delivery_tag)
            return
        self._noted.discard(delivery_tag)
        if self._dirty:
            self._flush()
        self._quick_append(delivery_tag, message)

    def ack(self, delivery_tag: str) -> None:
        """Settled at once, or by the event loop within `SETTLED_EVERY_S`."""
        if not self.channel.connection.settles_in_groups:
            super().ack(delivery_tag)
            return
        self._quick_ack(delivery_tag)
        self._settled.append(delivery_tag)

    def settle(self) -> None:
        """Write down what was settled. What a lost connection keeps from being written comes again."""
        settled, self._settled = self._settled, []
        if not settled:
            return
        with self.pipe_or_acquire() as pipe:
            pipe.zrem(self.unacked_index_key, *settled)
            pipe.hdel(self.unacked_key, *settled)
            pipe.execute()


class Channel(redis.Channel):
    """A channel that can receive anything."""

    QoS = QoS

    # What kombu's stubs leave out.
    connection_errors: tuple[type[Exception], ...]
    pool: Any
    qos: Any
    _closing: bool
    _queue_cycle: Any
    _flush_brpop_reauth: Callable[[], None]
    _q_for_pri: Callable[[str, int], str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._made: tuple[Any, Any] | None = None
        super().__init__(*args, **kwargs)

    def close(self) -> None:
        """Settle first."""
        try:
            if not self.closed:
                self.qos.settle()
        finally:
            super().close()

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """One for each pool of connections: threads may share it."""
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[misc]  # left out of the stubs
        if self._made is None or self._made[0] is not self.pool:
            self._made = (self.pool, super()._create_client())  # type: ignore[misc]  # left out of the stubs
        return self._made[1]

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu 5.7.0 has it, and the messages behind the first one, as many as there is room for."""
        try:
            try:
                received = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not received:
                raise Empty
            key, item = received
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._deliver(queue, [item, *self._behind(key)])
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _behind(self, key: bytes) -> list[bytes]:
        """What waits behind the message that was taken."""
        room: int | None = self.qos.can_consume_max_estimate()
        more = min(TOGETHER, TOGETHER if room is None else room) - 1
        if more <= 0 or self._closing:
            return []
        with self.conn_or_acquire() as client:
            return client.rpop(key, more) or []

    def _deliver(self, queue: str, items: list[bytes]) -> None:
        payloads = [self._understood(item, queue) for item in items]
        self.qos.note(payloads)
        for payload in payloads:
            self.connection._deliver(payload, queue)  # noqa: SLF001 - the transport's own

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        with self.conn_or_acquire() as client:
            for priority in self.priority_steps:
                item = client.rpop(self._q_for_pri(queue, priority))
                if item:
                    return self._understood(item, queue)
        raise Empty

    def _understood(self, item: bytes, queue: str) -> dict[str, Any]:
        """The message, if everything that kombu reads of it can be read."""
        try:
            read: dict[str, Any] = loads(bytes_to_str(item))
            message = self.Message(read, channel=self)
            where = message.delivery_info
            if isinstance(message.delivery_tag, str) and {"exchange", "routing_key"} <= where.keys():
                return read
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass
        return _wrapped(item, queue)


class Transport(redis.Transport):
    """The transport with that channel."""

    Channel = Channel

    # What kombu's stubs leave out.
    channels: list[Any]
    settles_in_groups = False
    _settling: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As kombu's; from now on a timer settles."""
        super().register_with_event_loop(connection, loop)
        if self._settling is not None:
            self._settling.cancel()
        self._settling = loop.call_repeatedly(SETTLED_EVERY_S, self._settle)
        self.settles_in_groups = True

    def _settle(self) -> None:
        for channel in self.channels:
            channel.qos.settle()


def _taken(payload: dict[str, Any]) -> str:
    """What kombu keeps of a message until it is settled, and gives back to its queue when it isn't."""
    where = payload["properties"]["delivery_info"]
    return dumps([payload, where["exchange"], where["routing_key"]])


def _wrapped(item: bytes, queue: str) -> dict[str, Any]:
    """A message whose body is all that was received."""
    return {
        "body": base64.b64encode(item).decode(),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }
