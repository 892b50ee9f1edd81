"""Puts the messages of a committed unit of work on their queues, through the same producer that backends use."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from qa_worker.messages import BULK, Message, Queue
from qa_worker.producer import Producer


class Publisher:
    """Connects with the first message, so that a process which sends none opens no connection."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def send(self, batch: Sequence[Message]) -> None:
        """Send in order. Raises StoreUnavailable where the broker is away."""
        self._connected().send(batch)

    def waiting(self) -> int:
        """For how many evaluations a message waits, at most. Raises StoreUnavailable where the broker is away."""
        lengths = self._connected().queue_lengths()
        return lengths[Queue.EVALUATE_CALL.value] + BULK * lengths[Queue.BACKLOG.value]

    def waiting_alerts(self) -> int:
        """How many messages wait in the queue of alerts. Raises StoreUnavailable where the broker is away."""
        return self._connected().queue_lengths()[Queue.SEND_ALERT.value]

    def waiting_runs(self) -> int:
        """How many messages wait in the queue of runs. Raises StoreUnavailable where the broker is away."""
        return self._connected().queue_lengths()[Queue.RUN_SCENARIO.value]

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            if self._producer is not None:
                self._producer.close()
                self._producer = None

    def _connected(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._broker_url)
            return self._producer
