"""Evaluations: the work of grading, and its results."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.rubrics import rubric_from_json
from qa_worker.adapters.postgres.tables import (
    attempts,
    calls,
    evaluation_scores,
    evaluations,
    findings,
    rubric_versions,
    rubrics,
)
from qa_worker.adapters.postgres.work import WorkRows, failure_values, usage_values
from qa_worker.application.ports import AttemptRecord, RubricVersion, StoredCall, WorkRef
from qa_worker.domain.call import CallId
from qa_worker.domain.evaluation import Evaluation, Verdict
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from qa_worker.domain.work import Lane, Lease, WorkState, WorkStatus

_DIED = "The process that worked on this call died or lost the database for longer than its lease."


class PostgresEvaluations:
    """Implements the port `Evaluations` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._work = WorkRows(connection, evaluations)

    def ensure(self, call: StoredCall, version: RubricVersion, *, lane: Lane, max_attempts: int) -> uuid.UUID:
        """See the port."""
        evaluation_id = uuid.uuid5(call.id, str(version.id))
        self._connection.execute(
            insert(evaluations)
            .values(
                id=evaluation_id,
                workspace_id=call.workspace,
                agent_id=call.agent_id,
                call_id=call.id,
                rubric_version_id=version.id,
                lane=lane.value,
                max_attempts=max_attempts,
            )
            .on_conflict_do_nothing()
        )
        self._connection.execute(
            update(calls).where(calls.c.id == call.id, calls.c.admitted_at.is_(None)).values(admitted_at=func.now())
        )
        return evaluation_id

    def status(self, evaluation_id: uuid.UUID) -> WorkStatus | None:
        """See the port."""
        return self._work.status(evaluation_id)

    def rubric_version(self, evaluation_id: uuid.UUID) -> RubricVersion | None:
        """See the port."""
        row = self._connection.execute(
            select(rubric_versions, rubrics.c.content)
            .join(evaluations, evaluations.c.rubric_version_id == rubric_versions.c.id)
            .join(rubrics, rubrics.c.id == rubric_versions.c.rubric_id)
            .where(evaluations.c.id == evaluation_id)
        ).one_or_none()
        if row is None:
            return None
        spec = JudgeSpec(JudgeKind(row.judge), row.model, row.effort, row.max_tokens)
        return RubricVersion(row.id, rubric_from_json(row.content).rubric, spec)

    def mark_queued(self, evaluation_id: uuid.UUID, *, in_flight_limit: int) -> bool:
        """See the port."""
        return self._work.mark_queued(evaluation_id, in_flight_limit=in_flight_limit)

    def claim(self, evaluation_id: uuid.UUID, *, lease_s: float) -> Lease | None:
        """See the port."""
        return self._work.claim(evaluation_id, lease_s=lease_s)

    def finish(self, lease: Lease, evaluation: Evaluation, evidence: Evidence, record: AttemptRecord) -> None:
        """See the port."""
        self._work.release(
            lease,
            {
                "state": WorkState.DONE.value,
                "verdict": evaluation.verdict.value,
                "overall": evaluation.overall,
                "reasons": list(evaluation.reasons),
                "summary": evaluation.summary,
                "dropped_quotes": evaluation.dropped_quotes,
                "evaluated_at": record.ended_at,
                "evidence": evidence_to_json(evidence),
                **failure_values(record),
                **self._summed_usage(record),
            },
        )
        self._store_details(lease.work_id, evaluation)
        self._store_attempt(lease, record)
        self._make_current(lease.work_id)

    def wait(self, lease: Lease, *, until: datetime, reason: str, counts: bool, record: AttemptRecord) -> None:
        """See the port."""
        waiting = self._work.waiting(until=until, reason=reason, counts=counts, record=record)
        self._work.release(lease, {**waiting, **self._summed_usage(record)})
        self._store_attempt(lease, record)

    def bury(self, lease: Lease, *, evidence: Evidence | None, record: AttemptRecord) -> None:
        """See the port."""
        self._work.release(
            lease,
            {
                **_buried(record.failure.code if record.failure else "", record.ended_at),
                "evidence": None if evidence is None else evidence_to_json(evidence),
                **failure_values(record),
                **self._summed_usage(record),
            },
        )
        self._store_attempt(lease, record)

    def due(self, *, in_flight_limit: int, batch: int) -> Sequence[WorkRef]:
        """See the port."""
        return _refs(self._work.due(in_flight_limit=in_flight_limit, batch=batch))

    def free_expired(self, *, limit: int) -> tuple[int, int]:
        """See the port."""
        expired = self._work.expired(limit=limit)
        if not expired:
            return 0, 0
        self._connection.execute(plain_insert(attempts), [_abandoned(row) for row in expired])
        freed = [row.id for row in expired if row.attempt < row.max_attempts]
        if freed:
            self._work.free(freed)
        buried = [row for row in expired if row.attempt >= row.max_attempts]
        for row in buried:
            values = _buried(FailureKind.ABANDONED.value, func.clock_timestamp())
            lease = Lease(row.id, row.lease_token, row.attempt, row.max_attempts, row.started_at)
            self._work.release(lease, {**values, **_died()})
        return len(freed), len(buried)

    def unsent(self, *, older_than_s: float, limit: int) -> Sequence[WorkRef]:
        """See the port."""
        return _refs(self._work.unsent(older_than_s=older_than_s, limit=limit))

    def _summed_usage(self, record: AttemptRecord) -> dict[str, Any]:
        return {name: evaluations.c[name] + value for name, value in usage_values(record).items()}

    def _store_details(self, evaluation_id: uuid.UUID, evaluation: Evaluation) -> None:
        scores = [
            {"evaluation_id": evaluation_id, "position": position, **asdict(score)}
            for position, score in enumerate(evaluation.scores)
        ]
        found = [
            {"evaluation_id": evaluation_id, "position": position, **asdict(finding)}
            for position, finding in enumerate(evaluation.findings)
        ]
        if scores:
            self._connection.execute(plain_insert(evaluation_scores), scores)
        if found:
            self._connection.execute(plain_insert(findings), found)

    def _store_attempt(self, lease: Lease, record: AttemptRecord) -> None:
        self._connection.execute(
            plain_insert(attempts).values(
                id=lease.token,
                evaluation_id=lease.work_id,
                attempt=lease.attempt,
                result=record.result,
                started_at=lease.started_at,
                ended_at=record.ended_at,
                model=record.model,
                request_id=record.request_id,
                raw=record.raw,
                **failure_values(record),
                **usage_values(record),
            )
        )

    def _make_current(self, evaluation_id: uuid.UUID) -> None:
        call_id = select(evaluations.c.call_id).where(evaluations.c.id == evaluation_id).scalar_subquery()
        # Two evaluations of one call may end at once; the call's row decides who is second, and the second is current.
        self._connection.execute(select(calls.c.id).where(calls.c.id == call_id).with_for_update())
        self._connection.execute(
            update(evaluations)
            .where(evaluations.c.call_id == call_id, evaluations.c.is_current, evaluations.c.id != evaluation_id)
            .values(is_current=False)
        )
        self._connection.execute(update(evaluations).where(evaluations.c.id == evaluation_id).values(is_current=True))


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Evidence as it is stored and shown."""
    return {
        "facts": [asdict(fact) for fact in evidence.facts],
        "applied": sorted(check.value for check in evidence.applied),
        "timing": None if evidence.timing is None else asdict(evidence.timing),
    }


def _refs(rows: Sequence[Row[Any]]) -> list[WorkRef]:
    return [WorkRef(row.id, CallId(row.call_id)) for row in rows]


def _buried(code: str, at: Any) -> dict[str, Any]:
    return {
        "state": WorkState.DEAD.value,
        "verdict": Verdict.NOT_EVALUATED.value,
        "reasons": [code],
        "evaluated_at": at,
    }


def _died() -> dict[str, Any]:
    return {
        "error_kind": FailureKind.ABANDONED.value,
        "error_code": FailureKind.ABANDONED.value,
        "error_message": _DIED,
    }


def _abandoned(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.lease_token,
        "evaluation_id": row.id,
        "attempt": row.attempt,
        "result": "abandoned",
        "started_at": row.started_at,
        "ended_at": row.lease_until,
        **_died(),
    }
