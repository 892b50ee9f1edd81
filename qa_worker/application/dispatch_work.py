"""Keep the broker short: send what is due, live calls first, as far as the limit of work in flight leaves room."""

from __future__ import annotations

from qa_worker.application._sending import messages_for
from qa_worker.application.ports import UnitOfWorkFactory

BATCH = 500


def dispatch_work(*, uow: UnitOfWorkFactory, in_flight_limit: int) -> int:
    """Send due work to the workers; returns how many evaluations.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat tries again.

    """
    with uow() as work:
        under_way = work.evaluations.in_flight()
        due = work.evaluations.due(in_flight_limit=in_flight_limit, batch=BATCH)
        for message in messages_for(due, under_way=under_way, in_flight_limit=in_flight_limit):
            work.nudge(message)
        work.commit()
    return len(due)
