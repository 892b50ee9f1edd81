"""What the database knows of the system's health."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.letters import letter_figures
from qa_worker.adapters.postgres.tables import batches, dead_letters, evaluations
from qa_worker.application.alert_queries import LetterFigures
from qa_worker.domain.batch import OPEN
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.evaluation import Verdict
from qa_worker.domain.failure import SPEND_CAP, FailureKind
from qa_worker.domain.failure_rate import Tally
from qa_worker.domain.work import FINAL, Lane, WorkState

# Rows are found by the time they were made and chosen by the time they were graded: this much may lie in between.
_GRADED_WITHIN = timedelta(days=1)


class PostgresVitals:
    """Implements the port `Vitals`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tallies(self, workspace: WorkspaceId, *, since: datetime, until: datetime) -> Mapping[uuid.UUID, Tally]:
        """See the port. A call that waited more than a day for its verdict is not counted: no index would find it."""
        columns = evaluations.c
        query = (
            select(columns.agent_id, *(_counted(verdict).label(verdict.value) for verdict in Verdict))
            .where(
                columns.workspace_id == workspace,
                columns.lane != Lane.RUN.value,
                columns.is_current,
                columns.created_at >= since - _GRADED_WITHIN,
                columns.created_at < until,
                columns.evaluated_at >= since,
                columns.evaluated_at < until,
            )
            .group_by(columns.agent_id)
        )
        with store_errors(), self._engine.connect() as connection:
            return {row.agent_id: _tally(row._mapping) for row in connection.execute(query)}  # noqa: SLF001 - public in SQLAlchemy

    def new_letters(self, workspace: WorkspaceId, *, since: datetime) -> int:
        """See the port."""
        columns = dead_letters.c
        new = _letters_of(workspace) & (columns.state == "open") & (columns.died_at >= since)
        with store_errors(), self._engine.connect() as connection:
            return int(connection.execute(select(func.count()).where(new)).scalar_one())

    def letter_figures(self, workspace: WorkspaceId) -> LetterFigures:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            return letter_figures(connection, _letters_of(workspace))

    def spend_limited(self, workspace: WorkspaceId) -> bool:
        """See the port."""
        columns = evaluations.c
        waits = (columns.workspace_id == workspace) & (columns.state == WorkState.PENDING.value)
        # Most find the limit known already, and are held back by our own gateway.
        held = (columns.error_kind == FailureKind.HELD.value) & (columns.error_code == SPEND_CAP)
        limited = select(columns.id).where(waits, (columns.error_kind == FailureKind.SPEND_CAP.value) | held)
        # A batch holds calls of many workspaces: its waiting is everybody's.
        batch = select(batches.c.id).where(
            batches.c.state.in_(sorted(OPEN)), batches.c.error_kind == FailureKind.SPEND_CAP.value
        )
        with store_errors(), self._engine.connect() as connection:
            return any(connection.execute(query.limit(1)).one_or_none() is not None for query in (limited, batch))

    def oldest_waiting_s(self, workspace: WorkspaceId) -> float | None:
        """See the port."""
        columns = evaluations.c
        mine = (columns.workspace_id == workspace) & (columns.lane == Lane.LIVE.value)
        # State by state: each has a small index of its own, which a list of states would not use.
        oldest_of = [
            select(func.min(columns.created_at)).where(mine, columns.state == state.value).scalar_subquery()
            for state in WorkState
            if state not in FINAL
        ]
        age = func.extract("epoch", func.clock_timestamp() - func.least(*oldest_of))
        with store_errors(), self._engine.connect() as connection:
            oldest = connection.execute(select(age)).scalar_one_or_none()
        return None if oldest is None else float(oldest)


def _letters_of(workspace: WorkspaceId) -> ColumnElement[bool]:
    """Unreadable messages are nobody's, so that everybody's rules hear of them."""
    return (dead_letters.c.workspace_id == workspace) | dead_letters.c.workspace_id.is_(None)


def _counted(verdict: Verdict) -> ColumnElement[int]:
    return func.count().filter(evaluations.c.verdict == verdict.value)


def _tally(counts: Mapping[Any, Any]) -> Tally:
    return Tally(
        passed=counts[Verdict.PASS.value],
        failed=counts[Verdict.FAIL.value],
        needs_review=counts[Verdict.NEEDS_REVIEW.value],
        not_evaluated=counts[Verdict.NOT_EVALUATED.value],
    )
