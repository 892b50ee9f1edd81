"""Send the deliveries that are due, endpoints in turn, and end those that nothing can come of."""

from __future__ import annotations

from qa_worker import messages
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.domain.endpoint import HealthRules

BATCH = 500


def dispatch_deliveries(*, uow: UnitOfWorkFactory, rules: HealthRules, patience_s: float, limit: int) -> int:
    """Send due deliveries to the workers, as far as their endpoints have room; returns how many.

    Deliveries to endpoints that are off become dead letters, and so do those that were tried in vain and have waited for a
    failing endpoint for `patience_s`. `limit` is how many may be under way to all endpoints together.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat tries again.

    """
    with uow() as work:
        work.deliveries.bury_hopeless(rules, patience_s=patience_s, limit=BATCH)
        due = work.deliveries.queue_due(rules, limit=limit, batch=BATCH)
        for delivery_id in due:
            work.nudge(messages.send_alert(delivery_id))
        work.commit()
    return len(due)
