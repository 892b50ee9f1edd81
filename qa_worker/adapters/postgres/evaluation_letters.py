"""Dead letters of evaluations: written where one is given up on, settled where one begins anew."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Connection, Row, Uuid, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from qa_worker.adapters.postgres.dead_letters import Letter, write_letters
from qa_worker.adapters.postgres.tables import attempts, dead_letters, evaluations
from qa_worker.domain.dead_letter import LetterKind, LetterState
from qa_worker.domain.work import Lane, WorkState
from qa_worker.messages import Queue, TaskName

_RETRY = "qa-worker retry"
_IDS = bindparam("ids", type_=ARRAY(Uuid))
# Asked of the table: what a commit had ended before whose answer was lost may have begun anew by now. The grading of a
# run has no letter of its own: the run's tells of it, and its replay is what grades again.
_DEAD = select(evaluations).where(
    evaluations.c.id == func.any(_IDS),
    evaluations.c.state == WorkState.DEAD.value,
    evaluations.c.lane != Lane.RUN.value,
)
_FIRST_ERRORS = (
    select(attempts.c.evaluation_id, attempts.c.error_message)
    .ext(distinct_on(attempts.c.evaluation_id))
    .where(attempts.c.evaluation_id == func.any(_IDS), attempts.c.error_kind.is_not(None))
    .order_by(attempts.c.evaluation_id, attempts.c.started_at)
)
_SETTLE = (
    update(dead_letters)
    .where(
        dead_letters.c.kind == LetterKind.EVALUATION.value,
        dead_letters.c.ref_id == func.any(_IDS),
        dead_letters.c.state == LetterState.OPEN.value,
    )
    .values(
        state=LetterState.REPLAYED.value,
        settled_at=func.clock_timestamp(),
        settled_by=_RETRY,
        replay_ref=dead_letters.c.ref_id,
    )
)


def write_evaluation_letters(connection: Connection, evaluation_ids: Sequence[uuid.UUID]) -> None:
    """A letter for each of these that is dead and no run's."""
    if not evaluation_ids:
        return
    firsts = first_errors(connection, evaluation_ids)
    dead = connection.execute(_DEAD, {"ids": list(evaluation_ids)}).all()
    write_letters(connection, [_letter(row, firsts.get(row.id, "")) for row in dead])


def first_errors(connection: Connection, evaluation_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """What went wrong first with each of these, where anything did."""
    rows = connection.execute(_FIRST_ERRORS, {"ids": list(evaluation_ids)})
    return {row.evaluation_id: row.error_message for row in rows}


def settle_revived(connection: Connection, evaluation_ids: Sequence[uuid.UUID]) -> None:
    """These begin anew without their letters having been asked for: nobody needs to look at them any more."""
    if evaluation_ids:
        connection.execute(_SETTLE, {"ids": list(evaluation_ids)})


def _letter(row: Row[Any], first_error: str) -> Letter:
    live = row.lane == Lane.LIVE.value
    return Letter(
        kind=LetterKind.EVALUATION.value,
        ref_id=row.id,
        workspace_id=row.workspace_id,
        queue=(Queue.EVALUATE_CALL if live else Queue.BACKLOG).value,
        task=TaskName.EVALUATE_CALL.value,
        reason=row.error_code,
        attempts=row.attempt,
        first_error=first_error or row.error_message,
        last_error=row.error_message,
        payload={"evaluation_id": str(row.id), "call_id": str(row.call_id)},
    )
