"""Which evaluations are sent next: live before backlog, workspaces in turn, no model beyond its room, nothing that a
spent budget would hold back.

A rubric version belongs to one workspace and one model. So the index of due work begins with it, and a walk from one
version to the next finds everybody who has something pending, however long anybody's backlog is.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ARRAY, Connection, Integer, Row, Select, Text, Uuid, bindparam, column, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.tables import evaluations, rubric_versions
from qa_worker.adapters.postgres.work import is_sent, seconds
from qa_worker.application.ports import Room, UnderWay
from qa_worker.application.purse import Left
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
_PENDING: ColumnElement[bool] = (_WORK.state == WorkState.PENDING.value) & (_WORK.lane == bindparam("lane"))


def wanted_models(connection: Connection, lanes: Iterable[Lane] = LANES) -> Collection[str]:
    """The models that pending work of these lanes is graded by."""
    return {version.model for lane in lanes for version in connection.execute(_VERSIONS, {"lane": lane.value})}


def begin_dispatch(connection: Connection) -> UnderWay | None:
    """See the port `Evaluations`."""
    if not connection.execute(select(func.pg_try_advisory_xact_lock(_DISPATCHING))).scalar_one():
        return None
    of: dict[WorkspaceId, int] = {}
    sent: dict[str, int] = {}
    for workspace, model, every, just_sent in connection.execute(_UNDER_WAY):
        of[WorkspaceId(workspace)] = of.get(WorkspaceId(workspace), 0) + every
        sent[model] = sent.get(model, 0) + just_sent
    return UnderWay(of, sent)


def choose_due(connection: Connection, room: Room, *, batch: int) -> list[uuid.UUID]:
    """The ids of what may be sent, no more than `batch`: each lane's due rows, the first of each workspace first."""
    rooms = dict(room.models)
    chosen: list[uuid.UUID] = []
    for lane, most in zip(LANES, (room.live, room.backlog), strict=True):
        left = min(batch, most) - len(chosen)
        for row in _in_turn(connection, lane, left, rooms, room.left) if left > 0 else ():
            chosen.append(row.id)
            if row.model in rooms:
                rooms[row.model] -= 1
    return chosen


def _in_turn(connection: Connection, lane: Lane, room: int, rooms: dict[str, int], money: Left) -> Sequence[Row[Any]]:
    found = connection.execute(_VERSIONS, {"lane": lane.value}).all()
    versions = [
        version
        for version in found
        if rooms.get(version.model, room) > 0 and not (version.model and money.is_spent(version.workspace_id))
    ]
    if not versions:
        return []
    by_model = {version.model: rooms.get(version.model, room) for version in versions}
    parameters = {
        "lane": lane.value,
        "room": room,
        "ids": [version.id for version in versions],
        "workspaces": [version.workspace_id for version in versions],
        "models": [version.model for version in versions],
        "rooms": [by_model[version.model] for version in versions],
    }
    # Where many have something due, a few rows of each are enough. Where that isn't enough, few have more.
    few = 1 + 2 * room // len(versions)
    rows = connection.execute(_DUE, {**parameters, "most": few}).all()
    if len(rows) < min(room, sum(by_model.values())) and few < room:
        rows = connection.execute(_DUE, {**parameters, "most": room}).all()
    return rows


def _pending_versions() -> Select[Any]:
    """The rubric versions that have pending work in the lane."""
    least = select(_WORK.rubric_version_id).where(_PENDING).order_by(_WORK.rubric_version_id).limit(1)
    walk = select(least.scalar_subquery().label("id")).cte("walk", recursive=True)
    following = least.where(_WORK.rubric_version_id > walk.c.id).scalar_subquery()
    walk = walk.union_all(select(following).where(walk.c.id.is_not(None)))
    return select(rubric_versions.c.id, rubric_versions.c.workspace_id, rubric_versions.c.model).join(
        walk, walk.c.id == rubric_versions.c.id
    )


def _under_way() -> Select[Any]:
    just_sent = (_WORK.state == WorkState.QUEUED.value) & (_WORK.queued_at > _NOW - seconds(_JUST_SENT_S))
    return (
        select(_WORK.workspace_id, rubric_versions.c.model, func.count(), func.count().filter(just_sent))
        .join(rubric_versions, rubric_versions.c.id == _WORK.rubric_version_id)
        .where(_WORK.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value]), is_sent(evaluations))
        .group_by(_WORK.workspace_id, rubric_versions.c.model)
    )


def _due() -> Select[Any]:
    """The first rows of each workspace, then the second ones, and so on; of each model no more than its room."""
    of_each = [
        bindparam("ids", type_=ARRAY(Uuid)),
        bindparam("workspaces", type_=ARRAY(Uuid)),
        bindparam("models", type_=ARRAY(Text)),
        bindparam("rooms", type_=ARRAY(Integer)),
    ]
    columns = [column("id", Uuid), column("workspace_id", Uuid), column("model", Text), column("room", Integer)]
    versions = func.unnest(*of_each).table_valued(*columns).render_derived(name="versions")
    oldest = (
        select(_WORK.id, _WORK.not_before)
        .where(_PENDING, _WORK.rubric_version_id == versions.c.id, _WORK.not_before <= _NOW)
        .order_by(_WORK.not_before)
        .limit(func.least(bindparam("most", type_=Integer), versions.c.room))
        .lateral("oldest")
    )
    turn = func.row_number().over(partition_by=versions.c.workspace_id, order_by=oldest.c.not_before)
    turns = (
        select(oldest.c.id, oldest.c.not_before, versions.c.model, versions.c.room, turn.label("turn"))
        .select_from(versions.join(oldest, literal(value=True)))
        .subquery("turns")
    )
    nth = func.row_number().over(partition_by=turns.c.model, order_by=[turns.c.turn, turns.c.not_before])
    ranked = select(turns, nth.label("nth")).subquery("ranked")
    return (
        select(ranked.c.id, ranked.c.model)
        .where(ranked.c.nth <= ranked.c.room)
        .order_by(ranked.c.turn, ranked.c.not_before)
        .limit(bindparam("room", type_=Integer))
    )


_VERSIONS = _pending_versions()
_UNDER_WAY = _under_way()
_DUE = _due()
