"""Keep a message that nobody can read: in the table, or, where the database is away, on the dead-letter queue."""

from __future__ import annotations

from enum import StrEnum

from qa_worker.application.dead_letters import LetterQueue, UnreadMessage
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.domain.errors import StoreUnavailable


class Kept(StrEnum):
    """Where it is now."""

    TABLE = "table"
    QUEUE = "queue"
    """`reconcile_dead_letters` makes its letter when the database is back."""


def bury_message(*, message: UnreadMessage, uow: UnitOfWorkFactory, queue: LetterQueue) -> Kept:
    """Store the letter of a message; acknowledge the message afterwards. Doing it twice only counts it twice.

    Raises:
        StoreUnavailable: database and broker are both away. The message must stay where it came from.

    """
    try:
        with uow() as work:
            work.dead_letters.add_message(message)
            work.commit()
    except StoreUnavailable:
        queue.keep(message)
        return Kept.QUEUE
    return Kept.TABLE
