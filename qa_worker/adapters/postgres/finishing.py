"""Writes the results of many evaluations with a handful of statements: the price of a statement is paid once for all.

Each statement takes its rows as one JSON document, so that its text never changes and is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Insert, Table, Uuid, bindparam, column, func, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.selectable import TableValuedAlias

from qa_worker.adapters.postgres.tables import attempts, evaluation_scores, evaluations, findings
from qa_worker.adapters.postgres.work import failure_values, usage_values
from qa_worker.application.ports import AttemptRecord, CallKey
from qa_worker.domain.evaluation import Evaluation
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import FailureKind
from qa_worker.domain.work import Lease, WorkState


@dataclass(frozen=True, slots=True)
class Finished:
    """One result that is about to be written."""

    lease: Lease
    call: CallKey
    evaluation: Evaluation
    evidence: Evidence
    record: AttemptRecord


def write_finished(connection: Connection, finished: Sequence[Finished]) -> None:
    """Store results whose rows this transaction has locked: see `PostgresEvaluations.hold`."""
    results = [_result(one) for one in finished]
    connection.execute(_OLDER_ARE_NOT_CURRENT, {"rows": results})
    connection.execute(_DONE, {"rows": results})
    write_attempts(connection, [(one.lease, one.record) for one in finished])
    for statement, rows in (
        (_SCORES, [row for one in finished for row in _details(one.lease, one.evaluation.scores)]),
        (_FINDINGS, [row for one in finished for row in _details(one.lease, one.evaluation.findings)]),
    ):
        if rows:
            connection.execute(statement, {"rows": rows})


def write_attempts(connection: Connection, ended: Sequence[tuple[Lease, AttemptRecord]]) -> None:
    """Store what is known of attempts that ended."""
    connection.execute(_ATTEMPTS, {"rows": [_attempt(lease, record) for lease, record in ended]})


def renew_parking(connection: Connection, lease: Lease, record: AttemptRecord) -> bool:
    """Write this over the latest parking of the same evaluation for the same reason; False where there was none.

    For what was held back without being asked: that it happened again is all there is to tell.
    """
    renewed = connection.execute(
        _RENEW,
        {
            "new_id": lease.token,
            "of": lease.work_id,
            "why": failure_values(record)["error_code"],
            "began": lease.started_at,
            "ended": record.ended_at,
            "message": failure_values(record)["error_message"],
            "by": record.model,
        },
    )
    return renewed.rowcount == 1


def _attempt(lease: Lease, record: AttemptRecord) -> dict[str, Any]:
    return {
        "id": str(lease.token),
        "evaluation_id": str(lease.work_id),
        "attempt": lease.attempt,
        "result": record.result,
        "started_at": lease.started_at.isoformat(),
        "ended_at": record.ended_at.isoformat(),
        "model": record.model,
        "request_id": record.request_id,
        "raw": record.raw,
        **failure_values(record),
        **usage_values(record),
    }


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Evidence as it is stored and shown."""
    return {
        "facts": [asdict(fact) for fact in evidence.facts],
        "applied": sorted(check.value for check in evidence.applied),
        "timing": None if evidence.timing is None else asdict(evidence.timing),
        "notes": list(evidence.notes),
    }


def _result(one: Finished) -> dict[str, Any]:
    evaluation = one.evaluation
    return {
        "id": str(one.lease.work_id),
        "call_id": str(one.call.id),
        "verdict": evaluation.verdict.value,
        "overall": evaluation.overall,
        "reasons": list(evaluation.reasons),
        "summary": evaluation.summary,
        "dropped_quotes": evaluation.dropped_quotes,
        "evaluated_at": one.record.ended_at.isoformat(),
        "evidence": evidence_to_json(one.evidence),
        **failure_values(one.record),
        **usage_values(one.record),
    }


def _details(lease: Lease, parts: Iterable[Any]) -> list[dict[str, Any]]:
    return [
        {"evaluation_id": str(lease.work_id), "position": position, **asdict(part)}
        for position, part in enumerate(parts)
    ]


def _rows(columns: Iterable[Column[Any]]) -> TableValuedAlias:
    """The JSON parameter `rows` as a table with these columns."""
    typed = [column(one.name, one.type) for one in columns]
    return func.jsonb_to_recordset(bindparam("rows", type_=JSONB)).table_valued(*typed).render_derived(with_types=True)


def _insertion(table: Table, *left_out: str) -> Insert:
    columns = [one for one in table.c if one.name not in left_out]
    rows = _rows(columns)
    return plain_insert(table).from_select([one.name for one in columns], select(*rows.c))


_USAGE = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "thinking_tokens",
    "cost_micro_usd",
)
_GIVEN = (
    "verdict",
    "overall",
    "reasons",
    "summary",
    "dropped_quotes",
    "evaluated_at",
    "evidence",
    "error_kind",
    "error_code",
    "error_message",
)
_RESULTS = _rows(evaluations.c[name] for name in ("id", "call_id", *_GIVEN, *_USAGE))
_MINE = evaluations.alias("mine")
_OTHER = evaluations.alias("other")
# The evaluation that was asked for last is the current one, whichever of them ends last.
_OLDER_ARE_NOT_CURRENT = (
    update(evaluations)
    .where(
        evaluations.c.call_id == _RESULTS.c.call_id,
        evaluations.c.is_current,
        evaluations.c.id != _RESULTS.c.id,
        _MINE.c.id == _RESULTS.c.id,
        evaluations.c.created_at <= _MINE.c.created_at,
    )
    .values(is_current=False)
)


def _values() -> dict[str, ColumnElement[Any] | Any]:
    newer_is_current = (
        select(_OTHER.c.id)
        .where(_OTHER.c.call_id == evaluations.c.call_id, _OTHER.c.id != evaluations.c.id, _OTHER.c.is_current)
        .correlate(evaluations)
        .exists()
    )
    return {
        "state": WorkState.DONE.value,
        "lease_token": None,
        "lease_until": None,
        "is_current": ~newer_is_current,
        **{name: _RESULTS.c[name] for name in _GIVEN},
        **{name: evaluations.c[name] + _RESULTS.c[name] for name in _USAGE},
    }


_DONE = update(evaluations).where(evaluations.c.id == _RESULTS.c.id).values(_values())
_ATTEMPTS = _insertion(attempts)
_PARKING = (
    select(attempts.c.id)
    .where(
        attempts.c.evaluation_id == bindparam("of", type_=Uuid),
        attempts.c.result == "parked",
        attempts.c.error_kind == FailureKind.HELD.value,
        attempts.c.error_code == bindparam("why"),
        attempts.c.input_tokens + attempts.c.output_tokens == 0,
    )
    .order_by(attempts.c.started_at.desc())
    .limit(1)
    .scalar_subquery()
)
# Its id is the token of the claim that it tells of, as everywhere: see `PostgresEvaluations.hold`.
_RENEW = (
    update(attempts)
    .where(attempts.c.id == _PARKING)
    .values(
        id=bindparam("new_id", type_=Uuid),
        started_at=bindparam("began"),
        ended_at=bindparam("ended"),
        error_message=bindparam("message"),
        model=bindparam("by"),
    )
)
_SCORES = _insertion(evaluation_scores)
_FINDINGS = _insertion(findings)
