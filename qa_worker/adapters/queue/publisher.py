"""Puts the messages of a committed unit of work on their queues, through the same producer that backends use."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from qa_worker.messages import Message
from qa_worker.producer import Producer


class Publisher:
    """Connects with the first message, so that a process which sends none opens no connection."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def send(self, batch: Sequence[Message]) -> None:
        """Send in order. Raises StoreUnavailable where the broker is away."""
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._broker_url)
        self._producer.send(batch)

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            if self._producer is not None:
                self._producer.close()
                self._producer = None
