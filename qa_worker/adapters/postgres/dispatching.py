"""Which evaluations are sent next: live before backlog, workspaces in turn, no model beyond its room.

A rubric version belongs to one workspace and one model. So the index of due work begins with it, and a walk from one
version to the next finds everybody who has something pending, however long anybody's backlog is.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from sqlalchemy import CTE, Connection, Subquery, case, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.tables import evaluations, rubric_versions
from qa_worker.adapters.postgres.work import is_sent, seconds
from qa_worker.application.ports import Room, UnderWay
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.work import Lane, WorkState

LANES = (Lane.LIVE, Lane.BACKLOG)
"""What is sent one by one or in bulk messages, in the order of their rights."""

# Any fixed number: it only has to be the same for all who dispatch.
_DISPATCHING = 7_164_214
# What was sent longer ago and not begun either waits behind other work or was lost with its message: whichever it is,
# it must not hold back what could leave. The limit of work in flight bounds both.
_JUST_SENT_S = 10.0
_NOW = func.clock_timestamp()
_WORK = evaluations.c


def wanted_models(connection: Connection) -> Collection[str]:
    """The models that pending work is graded by."""
    found: set[str] = set()
    for lane in LANES:
        versions = _pending_versions(lane)
        models = select(rubric_versions.c.model).join(versions, versions.c.id == rubric_versions.c.id).distinct()
        found.update(connection.execute(models).scalars())
    return found


def begin_dispatch(connection: Connection) -> UnderWay | None:
    """See the port `Evaluations`."""
    if not connection.execute(select(func.pg_try_advisory_xact_lock(_DISPATCHING))).scalar_one():
        return None
    just_sent = (_WORK.state == WorkState.QUEUED.value) & (_WORK.queued_at > _NOW - seconds(_JUST_SENT_S))
    rows = connection.execute(
        select(
            _WORK.workspace_id,
            rubric_versions.c.model,
            func.count().label("all"),
            func.count().filter(just_sent).label("sent"),
        )
        .join(rubric_versions, rubric_versions.c.id == _WORK.rubric_version_id)
        .where(_WORK.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value]), is_sent(evaluations))
        .group_by(_WORK.workspace_id, rubric_versions.c.model)
    )
    of: dict[WorkspaceId, int] = {}
    sent: dict[str, int] = {}
    for workspace, model, every, waiting in rows:
        of[WorkspaceId(workspace)] = of.get(WorkspaceId(workspace), 0) + every
        sent[model] = sent.get(model, 0) + waiting
    return UnderWay(of, sent)


def choose_due(connection: Connection, room: Room, *, batch: int) -> list[uuid.UUID]:
    """The ids of what may be sent, no more than `batch`: each lane's due rows, the first of each workspace first."""
    rooms = dict(room.models)
    chosen: list[uuid.UUID] = []
    for lane, most in zip(LANES, (room.live, room.backlog), strict=True):
        left = min(batch, most) - len(chosen)
        if left <= 0:
            continue
        for work_id, model in connection.execute(_in_turn(lane, left, rooms)):
            chosen.append(work_id)
            if model in rooms:
                rooms[model] -= 1
    return chosen


def _in_turn(lane: Lane, room: int, rooms: dict[str, int]) -> Any:
    versions = _pending_versions(lane)
    closed = [model for model, most in rooms.items() if most <= 0]
    open_ = (
        select(rubric_versions.c.id, rubric_versions.c.workspace_id, rubric_versions.c.model)
        .join(versions, versions.c.id == rubric_versions.c.id)
        .where(rubric_versions.c.model.not_in(closed))
        .subquery("open_versions")
    )
    oldest = (
        select(_WORK.id, _WORK.not_before)
        .where(_pending(lane), _WORK.rubric_version_id == open_.c.id, _WORK.not_before <= _NOW)
        .order_by(_WORK.not_before)
        .limit(room)
        .lateral("oldest")
    )
    turn = func.row_number().over(partition_by=open_.c.workspace_id, order_by=oldest.c.not_before)
    turns = (
        select(oldest.c.id, oldest.c.not_before, open_.c.model, turn.label("turn"))
        .select_from(open_.join(oldest, literal(value=True)))
        .subquery("turns")
    )
    ranked = _ranked_by_model(turns)
    return (
        select(ranked.c.id, ranked.c.model)
        .where(_within(ranked, {model: most for model, most in rooms.items() if most > 0}, room))
        .order_by(ranked.c.turn, ranked.c.not_before)
        .limit(room)
    )


def _ranked_by_model(turns: Subquery) -> Subquery:
    nth = func.row_number().over(partition_by=turns.c.model, order_by=[turns.c.turn, turns.c.not_before])
    return select(turns, nth.label("nth")).subquery("ranked")


def _within(ranked: Subquery, rooms: dict[str, int], room: int) -> ColumnElement[bool]:
    most: ColumnElement[int] = case(rooms, value=ranked.c.model, else_=room) if rooms else literal(room)
    within: ColumnElement[bool] = ranked.c.nth <= most
    return within


def _pending_versions(lane: Lane) -> CTE:
    """The rubric versions that have pending work in this lane. The last row is NULL."""
    least = select(_WORK.rubric_version_id).where(_pending(lane)).order_by(_WORK.rubric_version_id).limit(1)
    versions = select(least.scalar_subquery().label("id")).cte("versions", recursive=True)
    following = least.where(_WORK.rubric_version_id > versions.c.id).scalar_subquery()
    return versions.union_all(select(following).where(versions.c.id.is_not(None)))


def _pending(lane: Lane) -> ColumnElement[bool]:
    return (_WORK.state == WorkState.PENDING.value) & (_WORK.lane == lane.value)
