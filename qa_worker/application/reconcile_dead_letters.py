"""Keep the dead-letter queue and the table in step: as many messages there as letters are open, and about those.

The table is the truth of what became of a letter. That there was one is told by either: see `restore`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from qa_worker.application.dead_letters import LetterQueue, Notice, UnreadMessage
from qa_worker.application.ports import Clock, UnitOfWorkFactory

BATCH = 100
# Looked at each time, even where the count is right: a message may have come while another one was lost.
_ALWAYS = 5
# And where it isn't: a few hundred milliseconds.
_WHERE_WRONG = 500
# Announced at once: 10,000 letters take less than a minute.
_MOST_ANNOUNCED = 2000


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was done: put on the queue, removed from it because its letter is settled, given the letter it lacked.

    `lost` had been announced, and the broker has lost some of them.
    """

    announced: int = 0
    removed: int = 0
    found: int = 0
    lost: int = 0


def reconcile_dead_letters(*, uow: UnitOfWorkFactory, queue: LetterQueue, clock: Clock, keep_days: int) -> Reconciled:
    """One bounded sweep; the next one goes on. Several at once do no harm, only work twice.

    A letter that lies on the queue and isn't in the table was lost with a database that was restored: it comes back. Only
    settled letters are ever deleted, `keep_days` after that, and so at least as long after they were announced.
    What is looked at is taken off the queue, and what still counts is announced anew, under a fresh announcement: so
    whatever crashes in between, a message about a settled letter and a second one about an open letter are found out.

    Raises:
        StoreUnavailable: the database or the broker is out of reach; the next beat tries again.

    """
    lost = _find_losses(uow, queue)
    known_since = clock.now() - timedelta(days=keep_days)
    removed, found = (0, 0) if lost else _look(uow, queue, known_since)
    return Reconciled(_announce(uow, queue), removed, found, lost)


def _find_losses(uow: UnitOfWorkFactory, queue: LetterQueue) -> int:
    """Fewer messages than there should be: which ones are missing can't be known, so all are announced anew."""
    # Counted before the queue is: what is announced in between makes the queue longer, never too short.
    if _expected(uow) <= queue.depth():
        return 0
    with uow() as work:
        lost = work.dead_letters.recall_all()
        work.commit()
    return lost


def _expected(uow: UnitOfWorkFactory) -> int:
    with uow() as work:
        return work.dead_letters.on_the_queue()


def _look(uow: UnitOfWorkFactory, queue: LetterQueue, known_since: datetime) -> tuple[int, int]:
    surplus = queue.depth() - _expected(uow)
    left = _ALWAYS if surplus <= 0 else _WHERE_WRONG
    removed = found = 0

    def settle(items: Sequence[Notice | UnreadMessage]) -> None:
        nonlocal removed, found
        notices = [item for item in items if isinstance(item, Notice)]
        unread = [item for item in items if isinstance(item, UnreadMessage)]
        with uow() as work:
            for message in unread:
                work.dead_letters.add_message(message)
            restored = work.dead_letters.restore(notices, since=known_since)
            removed += len(notices) - work.dead_letters.recall(notices)
            work.commit()
        found += len(unread) + restored

    while left > 0:
        taken = queue.take(min(left, BATCH), settle)
        left -= taken
        if not taken or (surplus > 0 and removed + found >= surplus):
            break
    return removed, found


def _announce(uow: UnitOfWorkFactory, queue: LetterQueue) -> int:
    announced = 0
    while announced < _MOST_ANNOUNCED:
        with uow() as work:
            notices = work.dead_letters.to_announce(limit=BATCH)
            work.commit()
        if not notices:
            break
        queue.publish(notices)
        with uow() as work:
            work.dead_letters.announced(notices)
            work.commit()
        announced += len(notices)
    return announced
