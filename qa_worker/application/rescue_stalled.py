"""Find what got stuck: leases of dead workers, messages that the broker lost, calls that nobody asked about."""

from __future__ import annotations

from collections.abc import Callable

from qa_worker.application._admission import admit_all
from qa_worker.application._matching import note_abandoned
from qa_worker.application._sending import messages_for
from qa_worker.application.ports import Grading, Rescued, UnitOfWork, UnitOfWorkFactory

BATCH = 500


def rescue_stalled(
    *,
    uow: UnitOfWorkFactory,
    grading: Grading,
    resend_after_s: float,
    in_flight_limit: int,
    waiting: Callable[[], int],
) -> Rescued:
    """One bounded sweep; several may run at once without doubling anything.

    `waiting` tells for how many evaluations a message still lies in the broker: those are not sent again.

    Raises:
        StoreUnavailable: the database or the broker is out of reach; the next beat tries again.

    """
    in_broker = waiting()
    with uow() as work:
        freed, buried = work.evaluations.free_expired(limit=BATCH)
        if buried:
            note_abandoned(work)
        lost = work.evaluations.unsent(older_than_s=resend_after_s, waiting=in_broker, limit=BATCH)
        for message in messages_for(lost, under_way={}, in_flight_limit=in_flight_limit):
            work.nudge(message)
        work.commit()
    with uow() as work:
        admitted = _admit_forgotten(work, grading=grading, older_than_s=resend_after_s)
        work.commit()
    return Rescued(freed=freed, buried=buried, resent=len(lost), admitted=admitted)


def _admit_forgotten(work: UnitOfWork, *, grading: Grading, older_than_s: float) -> int:
    """Calls that were stored as rows and whose message never came get their evaluation; the dispatcher sends it."""
    forgotten = work.calls.unadmitted(older_than_s=older_than_s, limit=BATCH)
    admit_all(work, forgotten, grading=grading)
    return len(forgotten)
