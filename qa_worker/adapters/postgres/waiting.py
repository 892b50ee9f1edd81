"""What waits, and for what, of every kind of work; and the models that work is done with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, Table, case, func, literal_column, select, union
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.dispatching import wanted_models
from qa_worker.adapters.postgres.tables import (
    agents_under_test,
    batches,
    default_rubrics,
    deliveries,
    evaluations,
    rubric_versions,
    rubrics,
    runs,
)
from qa_worker.adapters.postgres.waiting_evaluations import waiting_evaluations
from qa_worker.application.playing import AgentKind
from qa_worker.application.purse import Left
from qa_worker.domain.batch import OPEN, BatchState
from qa_worker.domain.work import Lane, WorkState

_UNDER_WAY = (WorkState.QUEUED.value, WorkState.RUNNING.value)


def waits_for(connection: Connection, left: Left) -> tuple[Mapping[str, Mapping[str, int]], float | None]:
    """Of each kind of work how many pieces wait for what, due or not; kinds of which none waits are left out.

    And for how many seconds the oldest evaluation has waited that is due and that nothing is known to hold back.
    """
    of_evaluations, oldest_due_s = waiting_evaluations(connection, left)
    others = {kind: {row.reason: row.n for row in connection.execute(query)} for kind, query in _WAITING.items()}
    found = {"evaluations": of_evaluations, **others}
    return {kind: reasons for kind, reasons in found.items() if reasons}, oldest_due_s


def used_models(connection: Connection) -> Collection[str]:
    """The models that unfinished work and the rubrics that hold ask for."""
    return {*filter(None, wanted_models(connection, Lane)), *connection.execute(_MODELS).scalars()}


def _counted(reason: ColumnElement[Any], which: ColumnElement[bool]) -> Select[Any]:
    return select(reason.label("reason"), func.count().label("n")).where(which).group_by(literal_column("reason"))


def _pending(table: Table) -> Select[Any]:
    # Also what is due and not sent: a gate may be closed, or limits used up.
    reason = case((table.c.wait_reason != "", table.c.wait_reason), else_=literal_column("'their turn'"))
    return _counted(reason, table.c.state == WorkState.PENDING.value)


def _open_batches() -> Select[Any]:
    columns = batches.c
    reason = case(
        (columns.error_code != "", columns.error_code),
        (columns.state == BatchState.IN_PROGRESS.value, literal_column("'the provider'")),
        else_=literal_column("'their turn'"),
    )
    # A row that only remembers somebody else's batch has no model.
    return _counted(reason, columns.state.in_(sorted(OPEN)) & (columns.model != ""))


def _models() -> Select[Any]:
    begun = (
        select(rubric_versions.c.model)
        .join(evaluations, evaluations.c.rubric_version_id == rubric_versions.c.id)
        .where(evaluations.c.state.in_(_UNDER_WAY))
    )
    of_rubrics = select(rubrics.c.content["overrides"]["model"].astext).join(
        default_rubrics, default_rubrics.c.rubric_id == rubrics.c.id
    )
    of_agents = (
        select(agents_under_test.c.content["target"]["settings"]["model"].astext)
        .join(runs, runs.c.agent_under_test_id == agents_under_test.c.id)
        .where(
            agents_under_test.c.kind == AgentKind.CLAUDE.value,
            runs.c.state.in_([WorkState.PENDING.value, *_UNDER_WAY]),
        )
    )
    found = union(begun, of_rubrics, of_agents).subquery()
    return select(found.c.model).where(found.c.model != "")


_WAITING = {
    "runs": _pending(runs),
    "batches": _open_batches(),
    "alerts": _pending(deliveries),
}
_MODELS = _models()
