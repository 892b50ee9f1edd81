"""Builds what keeps dead letters, and their queue in step with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qa_worker.adapters.queue.letters import BrokerLetterQueue
from qa_worker.application.bury_message import Kept, bury_message
from qa_worker.application.dead_letters import UnreadMessage
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.application.reconcile_dead_letters import Reconciled, reconcile_dead_letters
from qa_worker.application.unread_messages import Fault, unread_message
from qa_worker.bootstrap.clock import SystemClock
from qa_worker.settings import Settings


class LetterJobs:
    """What tasks and the consumer of messages call. Connects to the broker with its first use."""

    def __init__(self, chosen: Settings, uow: UnitOfWorkFactory) -> None:
        self._clock = SystemClock()
        self._uow = uow
        self._queue = BrokerLetterQueue(chosen.broker_url.get_secret_value(), self._clock)
        self.reconcile: Callable[[], Reconciled] = partial(
            reconcile_dead_letters,
            uow=uow,
            queue=self._queue,
            clock=self._clock,
            keep_days=chosen.alert_retention_days,
        )

    def unread(self, *, queue: str, task: str, body: bytes, fault: Fault) -> UnreadMessage:
        """What is kept of a message that came just now."""
        return unread_message(queue=queue, task=task, body=body, fault=fault, at=self._clock.now())

    def bury(self, message: UnreadMessage) -> Kept:
        """See `bury_message`."""
        return bury_message(message=message, uow=self._uow, queue=self._queue)

    def close(self) -> None:
        """Give the connection back."""
        self._queue.close()
