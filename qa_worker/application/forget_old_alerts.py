"""Forget alerts by their age, in small transactions, so that nothing waits for it."""

from __future__ import annotations

from datetime import timedelta

from qa_worker.application.ports import Clock, UnitOfWorkFactory

BATCH = 500
# What one beat deletes at most: the next one goes on.
_BATCHES = 20


def forget_old_alerts(*, uow: UnitOfWorkFactory, clock: Clock, keep_days: int) -> int:
    """Delete what is older than `keep_days`, the oldest first; never what is unfinished or waits for a person.

    Returns how many rows of alerts, incidents and settled letters went. Raises StoreUnavailable.
    """
    before = clock.now() - timedelta(days=keep_days)
    gone = 0
    for _ in range(_BATCHES):
        with uow() as work:
            now_gone = work.alerts.forget(before, batch=BATCH)
            work.commit()
        gone += now_gone
        if now_gone == 0:
            break
    return gone
