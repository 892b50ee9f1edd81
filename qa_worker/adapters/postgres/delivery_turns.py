"""Which deliveries go next: those that are due and for which their endpoints have room, endpoints in turn.

The parameters of all of these: `room`, `threshold`, `slow` and `slow_room` of the endpoints' rules (see
`qa_worker.domain.endpoint`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double, Select, Update, Uuid, bindparam, case, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.tables import deliveries, endpoints
from qa_worker.domain.work import WorkState

_NOW = func.clock_timestamp()
_DUE = (deliveries.c.state == WorkState.PENDING.value) & (deliveries.c.not_before <= _NOW)
# In the order of the index, so that a long backlog is never read whole: live ones first, then the oldest.
_ORDER = (deliveries.c.lane.desc(), deliveries.c.not_before)
_OPEN = (endpoints.c.state == "active") & func.coalesce(endpoints.c.paused_until <= _NOW, True)
SLOW = func.coalesce(endpoints.c.took_s > bindparam("slow", type_=Double), False)
"""Whether an endpoint takes long for a delivery, as far as that is known."""
_FAILING = endpoints.c.consecutive_failures >= bindparam("threshold")
_ROOM = case((_FAILING | SLOW | endpoints.c.took_s.is_(None), 1), else_=bindparam("room"))
_OTHER = deliveries.alias("other")
_UNDER_WAY = _OTHER.c.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value])
_SLOW_TAKEN = (
    select(func.count()).join(endpoints, endpoints.c.id == _OTHER.c.endpoint_id).where(_UNDER_WAY, SLOW)
).scalar_subquery()


def _queueable(due: ColumnElement[bool], wanted: ColumnElement[bool]) -> Select[Any]:
    """The ids of at most `batch` deliveries that are `due`, of the `wanted` endpoints.

    The first of each endpoint comes first, then the second of each: one that has 10,000 due gets no more than its room.
    Slow endpoints have one each, and `slow_room` together: the longest due goes first.
    """
    counted = select(_OTHER.c.endpoint_id, func.count().label("n")).where(_UNDER_WAY)
    taken = counted.group_by(_OTHER.c.endpoint_id).subquery("taken")
    oldest = (
        select(deliveries.c.id, deliveries.c.not_before, func.row_number().over(order_by=_ORDER).label("turn"))
        .where(deliveries.c.endpoint_id == endpoints.c.id, due)
        .order_by(*_ORDER)
        .limit(func.greatest(0, _ROOM - func.coalesce(taken.c.n, 0)))
        .lateral("oldest")
    )
    each = endpoints.outerjoin(taken, taken.c.endpoint_id == endpoints.c.id).join(oldest, literal(value=True))
    order = (oldest.c.turn, oldest.c.not_before)
    nth = func.row_number().over(partition_by=SLOW, order_by=order)
    chosen = (
        select(oldest.c.id, oldest.c.turn, oldest.c.not_before, SLOW.label("slow"), nth.label("nth"))
        .select_from(each)
        .where(wanted)
        .subquery("chosen")
    )
    fits = ~chosen.c.slow | (chosen.c.nth <= bindparam("slow_room") - _SLOW_TAKEN)
    ordered = select(chosen.c.id).where(fits).order_by(chosen.c.turn, chosen.c.not_before)
    return ordered.limit(bindparam("batch"))


def _next() -> Update:
    """Pending -> queued for the one delivery that is next at `endpoint`, if there is room for it; its id.

    None for a slow one: it would keep its place for as long as it has anything due, and others would get none.
    """
    under_way = select(func.count()).where(_UNDER_WAY, _OTHER.c.endpoint_id == endpoints.c.id).scalar_subquery()
    chosen = (
        select(deliveries.c.id)
        .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
        .where(deliveries.c.endpoint_id == bindparam("endpoint"), _DUE, _OPEN, ~SLOW, under_way < _ROOM)
        .order_by(*_ORDER)
        .limit(1)
        .with_for_update(of=deliveries, skip_locked=True)
        .cte("chosen")
    )
    return (
        update(deliveries)
        .where(deliveries.c.id.in_(select(chosen.c.id)))
        .values(state=WorkState.QUEUED.value, queued_at=_NOW)
        .returning(deliveries.c.id)
    )


_THESE = deliveries.c.id == func.any(bindparam("only", type_=ARRAY(Uuid)))
QUEUEABLE = _queueable(_DUE, _OPEN)
QUEUEABLE_OF = _queueable(_DUE & _THESE, _OPEN & endpoints.c.id.in_(select(deliveries.c.endpoint_id).where(_THESE)))
QUEUE_NEXT = _next()
