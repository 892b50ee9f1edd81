"""Calls to choose from: those without a done evaluation under the rubric version that holds for them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Text, and_, cast, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import array

from qa_worker.adapters.postgres.tables import agent_versions, agents, attempts, calls, evaluations
from qa_worker.application.batching import AgentKey, Candidate, StoredSize
from qa_worker.application.ports import CallKey
from qa_worker.domain.backlog import MOVABLE, Choice, Selection
from qa_worker.domain.call import CallId, WorkspaceId, workspace_id
from qa_worker.domain.work import Lane, WorkState

# Counted by the database: the transcript stays there. Its stored, compressed size would be cheaper to have
# and says little of the text.
_TOOLS = cast(agent_versions.c.tools, Text)
# OFFSET 0: a transcript is written as text once, and not for each of its lengths.
_TALK = select(cast(calls.c.transcript, Text).label("text")).correlate(calls).offset(0).lateral("talk")
SIZE_COLUMNS = (
    select(array([func.length(_TALK.c.text), func.octet_length(_TALK.c.text)])).scalar_subquery().label("call_size"),
    calls.c.turn_count,
    (func.length(agent_versions.c.instructions) + func.length(_TOOLS)).label("agent_chars"),
    (func.octet_length(agent_versions.c.instructions) + func.octet_length(_TOOLS)).label("agent_bytes"),
)

_LATEST = 2000
# A conversation of a scenario's run is graded with the run, by its rubric, and is no call of production.
_RUN = evaluations.alias("run")
_OF_A_RUN = select(_RUN.c.id).where(_RUN.c.call_id == calls.c.id, _RUN.c.lane == Lane.RUN.value).exists()
_MINE = evaluations.alias("mine")
_CURRENT = evaluations.alias("current")


class PostgresBacklog:
    """Implements the port `BacklogRows` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def agents(self, selection: Selection, *, after: uuid.UUID | None, limit: int) -> Sequence[AgentKey]:
        """See the port."""
        found = select(agents.c.id, agents.c.workspace_id).order_by(agents.c.id).limit(limit)
        if selection.workspace is not None:
            found = found.where(agents.c.workspace_id == workspace_id(selection.workspace))
        if selection.agent is not None:
            found = found.where(agents.c.ref == selection.agent)
        if after is not None:
            found = found.where(agents.c.id > after)
        return [AgentKey(row.id, WorkspaceId(row.workspace_id)) for row in self._connection.execute(found)]

    def count(self, agent: AgentKey, selection: Selection) -> int:
        """See the port."""
        counted = select(func.count()).where(calls.c.agent_id == agent.id, *received(selection), ~_OF_A_RUN)
        return int(self._connection.execute(counted).scalar_one())

    def candidates(
        self,
        agent: AgentKey,
        version_id: uuid.UUID,
        selection: Selection,
        *,
        after: tuple[datetime, CallId] | None,
        limit: int,
        sized: bool,
    ) -> Sequence[Candidate]:
        """See the port."""
        chosen = _candidates(agent, version_id, selection)
        if after is not None:
            chosen = chosen.where(tuple_(calls.c.created_at, calls.c.id) > tuple_(*after))
        if sized:
            joined = chosen.join(agent_versions, agent_versions.c.id == calls.c.agent_version_id)
            chosen = joined.add_columns(*SIZE_COLUMNS)
        rows = self._connection.execute(chosen.order_by(calls.c.created_at, calls.c.id).limit(limit))
        return [_to_candidate(row, agent, sized=sized) for row in rows]

    def move(self, evaluation_ids: Sequence[uuid.UUID], lane: Lane) -> int:
        """See the port."""
        movable = evaluations.c.lane.in_([one.value for one in MOVABLE])
        waiting = (evaluations.c.state == WorkState.PENDING.value) & movable
        moved = self._connection.execute(
            update(evaluations)
            .where(evaluations.c.id == func.any(list(evaluation_ids)), waiting)
            .values(lane=lane.value)
        )
        return moved.rowcount

    def mean_output(self, model: str) -> int | None:
        """See the port."""
        # The latest of all models: an index on the model would cost more than this is worth.
        latest = select(attempts.c.model, attempts.c.output_tokens).order_by(attempts.c.ended_at.desc()).limit(_LATEST)
        answers = latest.subquery("latest")
        mean = select(func.avg(answers.c.output_tokens)).where(answers.c.model == model, answers.c.output_tokens > 0)
        found = self._connection.execute(mean).scalar_one_or_none()
        return None if found is None else round(found)


def received(selection: Selection) -> list[ColumnElement[bool]]:
    """The conditions on the time when calls were received."""
    conditions: list[ColumnElement[bool]] = []
    if selection.since is not None:
        conditions.append(calls.c.created_at >= selection.since)
    if selection.until is not None:
        conditions.append(calls.c.created_at < selection.until)
    return conditions


def to_size(row: Any) -> StoredSize:
    """The size in a row that has `SIZE_COLUMNS`."""
    call_chars, call_bytes = row.call_size
    return StoredSize(call_chars, row.turn_count, row.agent_chars, call_bytes, row.agent_bytes)


def _candidates(agent: AgentKey, version_id: uuid.UUID, selection: Selection) -> Select[Any]:
    mine = and_(_MINE.c.call_id == calls.c.id, _MINE.c.rubric_version_id == version_id)
    current = and_(_CURRENT.c.call_id == calls.c.id, _CURRENT.c.is_current)
    chosen = (
        select(
            calls.c.id,
            calls.c.created_at,
            _MINE.c.id.label("evaluation_id"),
            _MINE.c.state,
            _MINE.c.lane,
            _CURRENT.c.id.is_not(None).label("graded_before"),
        )
        .select_from(calls)
        .outerjoin(_MINE, mine)
        .outerjoin(_CURRENT, current)
        .where(calls.c.agent_id == agent.id, _MINE.c.state.is_distinct_from(WorkState.DONE.value))
        .where(*received(selection), ~_OF_A_RUN)
    )
    match selection.choice:
        case Choice.MISSING:
            return chosen.where(_CURRENT.c.id.is_(None))
        case Choice.OLD_RUBRIC:
            return chosen.where(_CURRENT.c.id.is_not(None))
        case Choice.ALL:
            return chosen


def _to_candidate(row: Row[Any], agent: AgentKey, *, sized: bool) -> Candidate:
    return Candidate(
        call=CallKey(CallId(row.id), agent.workspace, agent.id),
        received_at=row.created_at,
        evaluation_id=row.evaluation_id,
        state=None if row.state is None else WorkState(row.state),
        lane=None if row.lane is None else Lane(row.lane),
        graded_before=row.graded_before,
        size=to_size(row) if sized else None,
    )
