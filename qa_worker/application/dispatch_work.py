"""Keep the broker short: send what is due, live calls first, as far as the limit of work in flight leaves room."""

from __future__ import annotations

from qa_worker import messages
from qa_worker.application.ports import UnitOfWorkFactory

BATCH = 100


def dispatch_work(*, uow: UnitOfWorkFactory, in_flight_limit: int) -> int:
    """Send due work to the workers; returns how many messages.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat tries again.

    """
    with uow() as work:
        due = work.evaluations.due(in_flight_limit=in_flight_limit, batch=BATCH)
        for ref in due:
            work.nudge(messages.evaluate_call(ref.call_id, ref.evaluation_id))
        work.commit()
    return len(due)
