"""Keep the broker short: send what is due and can leave, live calls first, as far as the work in flight leaves room."""

from __future__ import annotations

from collections.abc import Callable

from qa_worker.application._sending import messages_for
from qa_worker.application.limits import Pace
from qa_worker.application.ports import Room, UnitOfWorkFactory
from qa_worker.application.purse import UNCAPPED, Left

BATCH = 500


def dispatch_work(*, uow: UnitOfWorkFactory, pace: Pace, left: Callable[[], Left], in_flight_limit: int) -> int:
    """Send due work to the workers; returns how many evaluations.

    What a spent budget holds back stays in its row, or it would take the others' turns for nothing. `left` is what may
    still be spent.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat tries again.

    """
    with uow() as work:
        wanted = work.evaluations.wanted_models()
    if not wanted:
        return 0
    # Between two transactions: none is open while Redis is waited for.
    models = [model for model in wanted if model]
    paced = pace.room(models) if models else {}
    money = left() if models else UNCAPPED
    with uow() as work:
        under_way = work.evaluations.begin_dispatch()
        if under_way is None:
            return 0  # another dispatcher is at it
        free = in_flight_limit - sum(under_way.of.values())
        room = Room(
            live=free,
            # A quarter of the limit is not for the backlog, so that a live call always finds room.
            backlog=free - in_flight_limit // 4,
            models={model: room - under_way.sent.get(model, 0) for model, room in paced.items()},
            left=money,
        )
        due = work.evaluations.due(room, batch=BATCH)
        for message in messages_for(due, under_way=under_way.of, in_flight_limit=in_flight_limit):
            work.nudge(message)
        work.commit()
    return len(due)
