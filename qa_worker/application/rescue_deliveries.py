"""Find deliveries that got stuck: leases of dead workers, messages that the broker lost."""

from __future__ import annotations

from collections.abc import Callable

from qa_worker import messages
from qa_worker.application.ports import Rescued, UnitOfWorkFactory

BATCH = 500


def rescue_deliveries(*, uow: UnitOfWorkFactory, resend_after_s: float, waiting: Callable[[], int]) -> Rescued:
    """One bounded sweep; several may run at once without doubling anything.

    `waiting` tells how many messages lie in the queue of alerts: as many deliveries are not sent again.

    Raises:
        StoreUnavailable: the database or the broker is out of reach; the next beat tries again.

    """
    in_broker = waiting()
    with uow() as work:
        freed, buried = work.deliveries.free_expired(limit=BATCH)
        lost = work.deliveries.unsent(older_than_s=resend_after_s, waiting=in_broker, limit=BATCH)
        for delivery_id in lost:
            work.nudge(messages.send_alert(delivery_id))
        work.commit()
    return Rescued(freed=freed, buried=buried, resent=len(lost))
