"""Dead letters of deliveries: written where one is given up on, tried or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Connection, Row, Uuid, bindparam, case, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.dead_letters import Letter, write_letters
from qa_worker.adapters.postgres.tables import deliveries, delivery_attempts
from qa_worker.adapters.postgres.work import WorkRows
from qa_worker.application.delivering import OFF
from qa_worker.domain.dead_letter import LetterKind
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.messages import Queue, TaskName

SWITCHED_OFF = Failure(FailureKind.REJECTED, OFF, "The endpoint is switched off.")
_FIRST_ERRORS = (
    select(delivery_attempts.c.delivery_id, delivery_attempts.c.error_message)
    .ext(distinct_on(delivery_attempts.c.delivery_id))
    .where(
        delivery_attempts.c.delivery_id == func.any(bindparam("ids", type_=ARRAY(Uuid))),
        delivery_attempts.c.error_kind.is_not(None),
    )
    .order_by(delivery_attempts.c.delivery_id, delivery_attempts.c.started_at)
)


def bury_waiting(connection: Connection, which: ColumnElement[bool], failure: Failure, *, limit: int) -> int:
    """Give up at most `limit` of the deliveries that wait, with letters; returns how many.

    The reason is this failure's code; what the last try had come to stays the last error.
    """
    before = deliveries.c.error_message
    values = {**error_values(failure), "error_message": case((before != "", before), else_=failure.message)}
    rows = WorkRows(connection, deliveries).bury_waiting(which, values, limit=limit)
    write_delivery_letters(connection, rows)
    return len(rows)


def write_delivery_letters(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """A letter for each of these deliveries, which are dead."""
    failed = connection.execute(_FIRST_ERRORS, {"ids": [row.id for row in rows]}) if rows else ()
    first_errors = {row.delivery_id: row.error_message for row in failed}
    write_letters(connection, [_letter(row, first_errors.get(row.id, "")) for row in rows])


def error_values(failure: Failure) -> dict[str, Any]:
    """The error columns of a delivery."""
    return {"error_kind": failure.kind.value, "error_code": failure.code, "error_message": failure.message}


def _letter(row: Row[Any], first_error: str) -> Letter:
    return Letter(
        kind=LetterKind.ALERT.value,
        ref_id=row.id,
        workspace_id=row.workspace_id,
        endpoint_id=row.endpoint_id,
        queue=Queue.SEND_ALERT.value,
        task=TaskName.SEND_ALERT.value,
        reason=row.error_code,
        attempts=row.attempt,
        first_error=first_error or row.error_message,
        last_error=row.error_message,
        payload={"delivery_id": str(row.id), "alert_id": str(row.alert_id)},
    )
