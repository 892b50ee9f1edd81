"""Evaluations: the work of grading, and its results."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.calls import CALL_COLUMNS, to_call
from qa_worker.adapters.postgres.rubrics import rubric_from_json
from qa_worker.adapters.postgres.tables import (
    agent_versions,
    agents,
    attempts,
    calls,
    evaluation_scores,
    evaluations,
    findings,
    rubric_versions,
    rubrics,
    workspaces,
)
from qa_worker.adapters.postgres.work import WorkRows, failure_values, usage_values
from qa_worker.application.ports import AttemptRecord, CallKey, Claimed, Malformed, RubricVersion, WorkRef
from qa_worker.domain.call import CallId, WorkspaceId
from qa_worker.domain.errors import LeaseLost
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

    def ensure(self, call: CallKey, version: RubricVersion, *, lane: Lane, max_attempts: int) -> uuid.UUID:
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

    def mark_queued(self, evaluation_id: uuid.UUID, *, in_flight_limit: int) -> bool:
        """See the port."""
        return self._work.mark_queued(evaluation_id, in_flight_limit=in_flight_limit)

    def of_call(self, call_id: CallId) -> uuid.UUID | None:
        """See the port."""
        found = select(evaluations.c.id).where(evaluations.c.call_id == call_id)
        latest = found.order_by(evaluations.c.created_at.desc()).limit(1)
        evaluation_id: uuid.UUID | None = self._connection.execute(latest).scalar_one_or_none()
        return evaluation_id

    def claim(
        self, evaluation_ids: Sequence[uuid.UUID], *, lease_s: float, of_call: CallId | None = None
    ) -> Sequence[Claimed | Malformed]:
        """See the port."""
        also = None if of_call is None else evaluations.c.call_id == of_call
        leases = {lease.work_id: lease for lease in self._work.claim(evaluation_ids, lease_s=lease_s, also=also)}
        if not leases:
            return []
        rows = self._connection.execute(_CLAIMED.where(evaluations.c.id == func.any(list(leases)))).all()
        return [self._claimed(row, leases[row.id]) for row in rows]

    def failures(self, evaluation_id: uuid.UUID, kind: FailureKind) -> int:
        """See the port."""
        of_kind = (attempts.c.evaluation_id == evaluation_id) & (attempts.c.error_kind == kind.value)
        return int(self._connection.execute(select(func.count()).where(of_kind)).scalar_one())

    def finish(
        self, lease: Lease, call: CallKey, evaluation: Evaluation, evidence: Evidence, record: AttemptRecord
    ) -> None:
        """See the port."""
        # Locked by its token first: whoever lost the lease must not have touched the call's other evaluations.
        self._work.hold(lease)
        # The unique index on the current evaluation of a call makes two that end at once take turns: see `records`.
        self._connection.execute(
            _OLDER_IS_NOT_CURRENT, {"of_call": call.id, "but": lease.work_id, "token": lease.token}
        )
        values = {
            "state": WorkState.DONE.value,
            "verdict": evaluation.verdict.value,
            "overall": evaluation.overall,
            "reasons": list(evaluation.reasons),
            "summary": evaluation.summary,
            "dropped_quotes": evaluation.dropped_quotes,
            "evaluated_at": record.ended_at,
            "evidence": evidence_to_json(evidence),
            "is_current": ~_NEWER_IS_CURRENT,
        }
        if self._release(lease, values, record):
            self._store_details(lease.work_id, evaluation)

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, record: AttemptRecord) -> None:
        """See the port."""
        self._release(lease, self._work.waiting(wait_s=wait_s, reason=reason, counts=counts, record=record), record)

    def bury(self, lease: Lease, *, evidence: Evidence | None, record: AttemptRecord) -> None:
        """See the port."""
        values = _buried(record.failure.code if record.failure else "", record.ended_at)
        values["evidence"] = None if evidence is None else evidence_to_json(evidence)
        self._release(lease, values, record)

    def charge(self, lease: Lease, record: AttemptRecord) -> None:
        """See the port."""
        mine = (attempts.c.id == lease.token) & (attempts.c.result == "abandoned") & (attempts.c.output_tokens == 0)
        values = {**usage_values(record), "model": record.model, "request_id": record.request_id}
        charged = self._connection.execute(update(attempts).where(mine).values(values))
        if charged.rowcount:
            self._connection.execute(
                update(evaluations).where(evaluations.c.id == lease.work_id).values(self._summed_usage(record))
            )

    def revive(self, call_ids: Sequence[CallId]) -> Sequence[WorkRef]:
        """See the port."""
        which = evaluations.c.call_id == func.any(list(call_ids)) if call_ids else evaluations.c.id.is_not(None)
        return _refs(self._work.revive(which))

    def _release(self, lease: Lease, values: dict[str, Any], record: AttemptRecord) -> bool:
        """Write the end of an attempt; False where this very end was written before, by a commit whose answer was lost."""
        try:
            self._work.release(lease, {**values, **failure_values(record), **self._summed_usage(record)})
        except LeaseLost:
            written = select(attempts.c.result).where(attempts.c.id == lease.token)
            if self._connection.execute(written).scalar_one_or_none() == record.result:
                return False
            raise
        self._store_attempt(lease, record)
        return True

    def in_flight(self) -> Mapping[WorkspaceId, int]:
        """See the port."""
        under_way = evaluations.c.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value])
        counted = select(evaluations.c.workspace_id, func.count().label("n")).where(under_way)
        rows = self._connection.execute(counted.group_by(evaluations.c.workspace_id))
        return {WorkspaceId(row.workspace_id): row.n for row in rows}

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

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[WorkRef]:
        """See the port."""
        return _refs(self._work.unsent(older_than_s=older_than_s, waiting=waiting, limit=limit))

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

    def _claimed(self, row: Any, lease: Lease) -> Claimed | Malformed:
        try:
            call = to_call(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # The transcript's own words stay out of the message: it is shown, and may be logged.
            return Malformed(
                lease, f"The row of this call can't be understood ({type(error).__name__}). See docs/formats.md."
            )
        return Claimed(
            lease=lease,
            key=CallKey(CallId(row.call_id), WorkspaceId(row.workspace_id), row.agent_id),
            workspace_name=row.workspace_name,
            call=call,
            version=self._version(row.rubric_version_id),
        )

    def _version(self, version_id: uuid.UUID) -> RubricVersion:
        """A rubric version never changes, so this process reads each one once."""
        known = _VERSIONS.get(version_id)
        if known is None:
            row = self._connection.execute(_VERSION.where(rubric_versions.c.id == version_id)).one()
            spec = JudgeSpec(JudgeKind(row.judge), row.model, row.effort, row.max_tokens)
            known = RubricVersion(row.id, rubric_from_json(row.content).rubric, spec)
            if len(_VERSIONS) >= _VERSIONS_KEPT:
                _VERSIONS.clear()
            _VERSIONS[version_id] = known
        return known


_VERSIONS: dict[uuid.UUID, RubricVersion] = {}
_VERSIONS_KEPT = 500
_VERSION = select(rubric_versions, rubrics.c.content).join(rubrics, rubrics.c.id == rubric_versions.c.rubric_id)
_CLAIMED = (
    select(
        evaluations.c.id,
        evaluations.c.call_id,
        evaluations.c.workspace_id,
        evaluations.c.agent_id,
        evaluations.c.rubric_version_id,
        *CALL_COLUMNS,
    )
    .join(calls, calls.c.id == evaluations.c.call_id)
    .join(workspaces, workspaces.c.id == evaluations.c.workspace_id)
    .join(agents, agents.c.id == evaluations.c.agent_id)
    .join(agent_versions, agent_versions.c.id == calls.c.agent_version_id)
)
# The evaluation that was asked for last is the current one, whichever of them ends last.
_MINE = evaluations.alias("mine")
_MADE = (
    select(_MINE.c.created_at)
    .where(_MINE.c.id == bindparam("but"), _MINE.c.lease_token == bindparam("token"))
    .scalar_subquery()
)
_OLDER_IS_NOT_CURRENT = (
    update(evaluations)
    .where(
        evaluations.c.call_id == bindparam("of_call"),
        evaluations.c.is_current,
        evaluations.c.id != bindparam("but"),
        evaluations.c.created_at <= _MADE,
    )
    .values(is_current=False)
)
_OTHER = evaluations.alias("other")
_NEWER_IS_CURRENT = (
    select(_OTHER.c.id)
    .where(_OTHER.c.call_id == evaluations.c.call_id, _OTHER.c.id != evaluations.c.id, _OTHER.c.is_current)
    .correlate(evaluations)
    .exists()
)


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Evidence as it is stored and shown."""
    return {
        "facts": [asdict(fact) for fact in evidence.facts],
        "applied": sorted(check.value for check in evidence.applied),
        "timing": None if evidence.timing is None else asdict(evidence.timing),
    }


def _refs(rows: Sequence[Row[Any]]) -> list[WorkRef]:
    return [WorkRef(row.id, CallId(row.call_id), WorkspaceId(row.workspace_id), Lane(row.lane)) for row in rows]


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
