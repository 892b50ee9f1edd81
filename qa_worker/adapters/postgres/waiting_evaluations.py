"""What evaluations wait for, and how long those have waited that nothing is known to hold back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from qa_worker.adapters.postgres.tables import evaluations, rubric_versions
from qa_worker.application.limits import SPENT
from qa_worker.application.purse import Left
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane, WorkState


def waiting_evaluations(connection: Connection, left: Left) -> tuple[Mapping[str, int], float | None]:
    """How many pending ones wait for what, due or not; and for how many seconds the oldest one that is due has waited.

    What nothing is `left` for of a budget waits for that: the dispatcher doesn't send it, and its row needn't say so.
    """
    waits_for: Counter[str] = Counter()
    due_s: list[float] = []
    for row in connection.execute(_WAITING):
        held = row.is_due and row.judge == JudgeKind.CLAUDE.value and left.is_spent(WorkspaceId(row.workspace_id))
        if row.state == WorkState.PENDING.value:
            waits_for[SPENT if held else _reason(row)] += row.n
        if row.is_due and not held:
            due_s.append(float(row.waited_s))
    return dict(waits_for), max(due_s, default=None)


def _reason(row: Row[Any]) -> str:
    """Also of what is due and not sent: a gate may be closed, or limits used up.

    What a budget held back and is due has something left by now, and only waits to be sent.
    """
    if row.wait_reason and not (row.is_due and row.wait_reason == SPENT):
        return str(row.wait_reason)
    return "a message batch" if row.lane == Lane.BATCH.value else "their turn"


_DUE: ColumnElement[bool] = evaluations.c.not_before <= func.now()
_KEYS = (
    evaluations.c.workspace_id,
    evaluations.c.state,
    evaluations.c.lane,
    evaluations.c.wait_reason,
    rubric_versions.c.judge,
    _DUE.label("is_due"),
)
_WAITING = (
    select(
        *_KEYS,
        func.extract("epoch", func.now() - func.min(evaluations.c.not_before)).label("waited_s"),
        func.count().label("n"),
    )
    .join(rubric_versions, rubric_versions.c.id == evaluations.c.rubric_version_id)
    .where(evaluations.c.state.in_([WorkState.PENDING.value, WorkState.QUEUED.value]))
    .group_by(*_KEYS)
)
