"""kombu's Redis transport for workers, except that what isn't a message ends no worker.

Whoever can reach Redis can push anything on a queue; a backend that pushes bare JSON is an easy mistake. kombu 5.7 takes it
off the queue and raises, Celery 5.7 then ends the worker, and the message is gone (measured). Here it is handed on as a
message that nobody can read, and becomes a dead letter.

Kombu finds this class by its name, which `qa_worker.tasks.consumer` gives for the connection that messages come through. As
Celery's `broker_transport` it would become part of the broker's URL, which Flower then doesn't understand.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads


class Channel(redis.Channel):
    """A channel that can receive anything."""

    # What kombu's stubs leave out.
    connection_errors: tuple[type[Exception], ...]
    _queue_cycle: Any
    _flush_brpop_reauth: Callable[[], None]
    _q_for_pri: Callable[[str, int], str]

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu 5.7.0 has it; what was received can't be had from outside when the original raises."""
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
            self.connection._deliver(self._understood(item, queue), queue)  # noqa: SLF001 - the transport's own
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

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
