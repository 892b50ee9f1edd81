"""The read side of backlogs and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, literal, select

from qa_worker.adapters.postgres.backlog import received
from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.tables import (
    agents,
    batch_items,
    batches,
    calls,
    evaluations,
    rubric_versions,
    rubrics,
    workspaces,
)
from qa_worker.application.backlog_queries import BacklogStatus, BatchView, LaneView
from qa_worker.domain.backlog import Selection
from qa_worker.domain.batch import OPEN, BatchState, Counts
from qa_worker.domain.call import CallId, workspace_id
from qa_worker.domain.changes import Graded, Pair
from qa_worker.domain.evaluation import Verdict
from qa_worker.domain.work import Lane, WorkState

_RECENT = 10
_SHOWN = 12
_LISTED = 50


class PostgresBacklogQueries:
    """Implements the port `BacklogQueries`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def status(self) -> BacklogStatus:
        """See the port."""
        open_ = [state.value for state in OPEN]
        is_open = _BATCHES.where(batches.c.state.in_(open_)).order_by(batches.c.created_at).limit(_LISTED)
        is_over = _BATCHES.where(batches.c.state.not_in(open_)).order_by(batches.c.created_at.desc()).limit(_RECENT)
        with store_errors(), self._engine.connect() as connection:
            return BacklogStatus(
                open=tuple(_to_view(row) for row in connection.execute(is_open)),
                recent=tuple(_to_view(row) for row in connection.execute(is_over)),
                waiting=_waiting(connection),
            )

    def pairs(
        self, selection: Selection, *, rubric: str | None, after: CallId | None, limit: int
    ) -> tuple[Sequence[Pair], CallId | None]:
        """See the port."""
        # In the order of the index on current evaluations.
        chosen = _PAIRS.where(*received(selection)).order_by(_CURRENT.c.call_id).limit(limit)
        if selection.workspace is not None:
            chosen = chosen.where(calls.c.workspace_id == workspace_id(selection.workspace))
        if selection.agent is not None:
            chosen = chosen.where(agents.c.ref == selection.agent)
        if rubric is not None:
            chosen = chosen.where(_RUBRIC_NOW.c.name == rubric)
        if after is not None:
            chosen = chosen.where(_CURRENT.c.call_id > after)
        with store_errors(), self._engine.connect() as connection:
            rows = connection.execute(chosen).all()
        return [_to_pair(row) for row in rows], CallId(rows[-1].call_id) if len(rows) == limit else None


def _waiting(connection: Connection) -> tuple[LaneView, ...]:
    columns = evaluations.c
    oldest_due = func.min(columns.not_before).filter(columns.not_before <= func.now())
    counted = (
        select(
            workspaces.c.name,
            columns.lane,
            func.count().label("waiting"),
            func.extract("epoch", func.now() - oldest_due).label("due_s"),
        )
        .join(workspaces, workspaces.c.id == columns.workspace_id)
        .where(columns.state == WorkState.PENDING.value, columns.lane.in_([Lane.BACKLOG.value, Lane.BATCH.value]))
        .group_by(workspaces.c.name, columns.lane)
        .order_by(workspaces.c.name, columns.lane)
    )
    return tuple(
        LaneView(row.name, Lane(row.lane), row.waiting, None if row.due_s is None else float(row.due_s))
        for row in connection.execute(counted)
    )


_PROMISED = (
    select(func.sum(batch_items.c.estimate_micro_usd))
    .where(batch_items.c.batch_id == batches.c.id, batch_items.c.result.is_(None))
    .correlate(batches)
    .scalar_subquery()
)
_AGE_S = func.extract("epoch", func.now() - batches.c.created_at).label("age_s")
# A row that only remembers somebody else's batch has no model.
_BATCHES = select(batches, _PROMISED.label("estimate_micro_usd"), _AGE_S).where(batches.c.model != "")
_CURRENT = evaluations.alias("current")
_VERSION_NOW = rubric_versions.alias("version_now")
_RUBRIC_NOW = rubrics.alias("rubric_now")
_OLDER = evaluations.alias("older")
_BEFORE = (
    select(_OLDER.c.verdict, _OLDER.c.overall, rubric_versions.c.fingerprint, rubrics.c.name)
    .join(rubric_versions, rubric_versions.c.id == _OLDER.c.rubric_version_id)
    .join(rubrics, rubrics.c.id == rubric_versions.c.rubric_id)
    .where(
        _OLDER.c.call_id == _CURRENT.c.call_id,
        _OLDER.c.id != _CURRENT.c.id,
        _OLDER.c.state == WorkState.DONE.value,
    )
    .order_by(_OLDER.c.created_at.desc())
    .limit(1)
    .lateral("before")
)
_PAIRS = (
    select(
        _CURRENT.c.call_id,
        calls.c.ref,
        workspaces.c.name.label("workspace"),
        agents.c.ref.label("agent"),
        _CURRENT.c.verdict,
        _CURRENT.c.overall,
        _VERSION_NOW.c.fingerprint,
        _RUBRIC_NOW.c.name.label("rubric"),
        _BEFORE.c.verdict.label("verdict_before"),
        _BEFORE.c.overall.label("overall_before"),
        _BEFORE.c.fingerprint.label("fingerprint_before"),
        _BEFORE.c.name.label("rubric_before"),
    )
    .select_from(_CURRENT)
    .join(calls, calls.c.id == _CURRENT.c.call_id)
    .join(workspaces, workspaces.c.id == calls.c.workspace_id)
    .join(agents, agents.c.id == calls.c.agent_id)
    .join(_VERSION_NOW, _VERSION_NOW.c.id == _CURRENT.c.rubric_version_id)
    .join(_RUBRIC_NOW, _RUBRIC_NOW.c.id == _VERSION_NOW.c.rubric_id)
    .outerjoin(_BEFORE, literal(value=True))
    .where(_CURRENT.c.is_current, _CURRENT.c.lane != Lane.RUN.value)
)


def _to_view(row: Row[Any]) -> BatchView:
    return BatchView(
        id=row.id,
        provider_id=row.provider_id,
        model=row.model,
        state=BatchState(row.state),
        request_count=row.request_count,
        adopted=row.adopted,
        dissolved=row.dissolved,
        created_at=row.created_at,
        age_s=float(row.age_s),
        submitted_at=row.submitted_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        collected_at=row.collected_at,
        cancel_asked_at=row.cancel_asked_at,
        next_look_at=row.next_look_at,
        counts=Counts(row.succeeded, row.errored, row.canceled, row.expired),
        estimate_micro_usd=None if row.estimate_micro_usd is None else int(row.estimate_micro_usd),
        cost_micro_usd=row.cost_micro_usd,
        error_kind=row.error_kind,
        error_code=row.error_code,
        error_message=row.error_message,
    )


def _to_pair(row: Any) -> Pair:
    before = None
    if row.verdict_before is not None:
        verdict = Verdict(row.verdict_before)
        before = Graded(verdict, row.overall_before, row.rubric_before, row.fingerprint_before[:_SHOWN])
    after = Graded(Verdict(row.verdict), row.overall, row.rubric, row.fingerprint[:_SHOWN])
    return Pair(row.ref, row.workspace, row.agent, before, after)
