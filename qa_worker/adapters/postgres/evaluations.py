"""Evaluations: the work of grading, and its results."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Integer,
    Row,
    Select,
    Uuid,
    bindparam,
    column,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import distinct_on, insert

from qa_worker.adapters.postgres.calls import CALL_COLUMNS, to_call
from qa_worker.adapters.postgres.dispatching import begin_dispatch, choose_due, wanted_models
from qa_worker.adapters.postgres.evaluation_letters import settle_revived, write_evaluation_letters
from qa_worker.adapters.postgres.expenses import Expenses, utc_day
from qa_worker.adapters.postgres.finishing import (
    Finished,
    evidence_to_json,
    renew_parking,
    write_attempts,
    write_finished,
)
from qa_worker.adapters.postgres.rubrics import rubric_from_json
from qa_worker.adapters.postgres.tables import (
    agent_versions,
    agents,
    attempts,
    batch_items,
    batches,
    calls,
    evaluation_scores,
    evaluations,
    findings,
    rubric_versions,
    rubrics,
    workspaces,
)
from qa_worker.adapters.postgres.work import WorkRows, claiming, failure_values, is_sent, usage_values
from qa_worker.application.ports import (
    Asked,
    AttemptRecord,
    CallKey,
    Claimed,
    Held,
    Malformed,
    Room,
    RubricVersion,
    UnderWay,
    WorkRef,
)
from qa_worker.domain.batch import OPEN
from qa_worker.domain.call import CallId, WorkspaceId
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.evaluation import Evaluation, Usage, Verdict
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from qa_worker.domain.verdict import UNREADABLE
from qa_worker.domain.work import WORKER_DIED, Lane, Lease, WorkState, WorkStatus

_DIED = "The process that worked on this call died or lost the database for longer than its lease."


class PostgresEvaluations:
    """Implements the port `Evaluations` on one connection."""

    def __init__(self, connection: Connection, expenses: Expenses) -> None:
        self._connection = connection
        self._expenses = expenses
        self._work = WorkRows(connection, evaluations)
        self._held: set[uuid.UUID] = set()
        self._finished: list[Finished] = []

    def ensure_all(
        self, wanted: Sequence[tuple[CallKey, RubricVersion]], *, lane: Lane, max_attempts: int
    ) -> Sequence[uuid.UUID]:
        """See the port."""
        ids = [uuid.uuid5(call.id, str(version.id)) for call, version in wanted]
        rows = {
            evaluation_id: {
                "id": evaluation_id,
                "workspace_id": call.workspace,
                "agent_id": call.agent_id,
                "call_id": call.id,
                "rubric_version_id": version.id,
                "lane": lane.value,
                "max_attempts": max_attempts,
            }
            for evaluation_id, (call, version) in zip(ids, wanted, strict=True)
        }
        if rows:
            # In one order for everybody: see `PostgresCalls.add_all`.
            self._connection.execute(_ENSURE, [rows[one] for one in sorted(rows)])
            self._connection.execute(_ADMITTED, {"ids": [call.id for call, _ in wanted]})
        return ids

    def status(self, evaluation_id: uuid.UUID) -> WorkStatus | None:
        """See the port."""
        return self._work.status(evaluation_id)

    def queue_new(self, evaluation_ids: Sequence[uuid.UUID], *, in_flight_limit: int) -> set[uuid.UUID]:
        """See the port."""
        return self._work.queue_new(evaluation_ids, in_flight_limit=in_flight_limit)

    def of_calls(self, call_ids: Sequence[CallId]) -> Mapping[CallId, uuid.UUID]:
        """See the port."""
        latest = (
            select(evaluations.c.call_id, evaluations.c.id)
            .ext(distinct_on(evaluations.c.call_id))
            .where(evaluations.c.call_id == func.any(list(call_ids)))
            .order_by(evaluations.c.call_id, evaluations.c.created_at.desc())
        )
        return {CallId(row.call_id): row.id for row in self._connection.execute(latest)}

    def asked(self, about: Sequence[tuple[CallId, uuid.UUID | None]], *, share: int) -> Sequence[Asked | None]:
        """See the port."""
        if not about:
            return []
        given = {"call_ids": [one for one, _ in about], "evaluation_ids": [one for _, one in about], "share": share}
        rows = {row.place: row for row in self._connection.execute(_ASKED, given)}
        return [_found(rows[place], share) if place in rows else None for place in range(1, len(about) + 1)]

    def claim(
        self,
        evaluation_ids: Sequence[uuid.UUID],
        *,
        lease_s: float,
        of_calls: Sequence[CallId] = (),
        only_sent: bool = False,
    ) -> Sequence[Claimed | Malformed]:
        """See the port."""
        if not of_calls:
            return self.loaded(self._work.claim(evaluation_ids, lease_s=lease_s))
        only = _CLAIM_SENT_OF_CALLS if only_sent else _CLAIM_OF_CALLS
        return self.loaded(self._work.claim(evaluation_ids, lease_s=lease_s, only=only, of_calls=list(of_calls)))

    def loaded(self, leases: Sequence[Lease]) -> Sequence[Claimed | Malformed]:
        """What was claimed before, with all that it needs, in this order; whether the leases still hold isn't asked."""
        if not leases:
            return []
        rows = self._connection.execute(_CLAIMED, {"ids": [lease.work_id for lease in leases]}).all()
        by_id = {row.id: row for row in rows}
        return [self._claimed(by_id[lease.work_id], lease) for lease in leases]

    def failures(self, evaluation_id: uuid.UUID, kind: FailureKind) -> int:
        """See the port."""
        of_kind = (
            select(func.count())
            .join_from(attempts, evaluations, evaluations.c.id == attempts.c.evaluation_id)
            .where(
                evaluations.c.id == evaluation_id,
                attempts.c.error_kind == kind.value,
                attempts.c.started_at >= func.coalesce(evaluations.c.revived_at, evaluations.c.created_at),
            )
        )
        return int(self._connection.execute(of_kind).scalar_one())

    def hold(self, leases: Sequence[Lease]) -> Held:
        """See the port."""
        tokens = [lease.token for lease in leases]
        mine = self._work.hold(leases)
        self._held |= mine
        missing = [token for token in tokens if token not in mine]
        return Held(frozenset(mine), self._written(missing) if missing else {})

    def _written(self, tokens: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
        return {row.id: row.result for row in self._connection.execute(_WRITTEN, {"tokens": list(tokens)})}

    def finish(
        self, lease: Lease, call: CallKey, evaluation: Evaluation, evidence: Evidence, record: AttemptRecord
    ) -> None:
        """See the port."""
        self._finished.append(Finished(lease, call, evaluation, evidence, record))

    def flush(self) -> None:
        """Write the results that this transaction was given. Raises LeaseLost."""
        finished, self._finished = self._finished, []
        # Locked by its token first: whoever lost the lease must not have touched the call's other evaluations.
        unsure = {one.lease.token: one for one in finished if one.lease.token not in self._held}
        held = self.hold([one.lease for one in unsure.values()]) if unsure else Held()
        for token, one in unsure.items():
            if token not in held.mine and held.written.get(token) != one.record.result:
                raise LeaseLost(str(one.lease.work_id))
        mine = [one for one in finished if one.lease.token in self._held]
        if mine:
            write_finished(self._connection, mine)
            for one in mine:
                self._expenses.note(one.call.workspace, utc_day(one.record.ended_at), one.record.cost_micro_usd)

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, record: AttemptRecord) -> None:
        """See the port."""
        self._release(lease, self._work.waiting(wait_s=wait_s, reason=reason, counts=counts, record=record), record)

    def bury(self, lease: Lease, *, evidence: Evidence | None, record: AttemptRecord) -> None:
        """See the port."""
        values = _buried(record.failure.code if record.failure else "", record.ended_at)
        values["evidence"] = None if evidence is None else evidence_to_json(evidence)
        self._release(lease, values, record)
        write_evaluation_letters(self._connection, [lease.work_id])

    def charge(self, lease: Lease, record: AttemptRecord) -> None:
        """See the port."""
        mine = (attempts.c.id == lease.token) & (attempts.c.result == "abandoned") & (attempts.c.output_tokens == 0)
        values = {**usage_values(record), "model": record.model, "request_id": record.request_id}
        charged = self._connection.execute(update(attempts).where(mine).values(values))
        if charged.rowcount:
            self._connection.execute(
                update(evaluations).where(evaluations.c.id == lease.work_id).values(self._summed_usage(record))
            )
            self._note(lease, record)

    def revive(self, call_ids: Sequence[CallId]) -> Sequence[WorkRef]:
        """See the port."""
        which = evaluations.c.call_id == func.any(list(call_ids)) if call_ids else evaluations.c.id.is_not(None)
        rows = self._work.revive(_NO_RUNS & which, UNDECIDED, done=_UNREAD if call_ids else None)
        revived = _refs(rows)
        ids = [ref.evaluation_id for ref in revived]
        # What proven breaches had given it without the judge is measured anew.
        for part in (evaluation_scores, findings):
            self._connection.execute(delete(part).where(part.c.evaluation_id == func.any(ids)))
        settle_revived(self._connection, ids)
        return revived

    def revive_one(self, evaluation_id: uuid.UUID) -> WorkRef | None:
        """See the port."""
        return next(iter(_refs(self._work.revive(_NO_RUNS & (evaluations.c.id == evaluation_id), UNDECIDED))), None)

    def _release(self, lease: Lease, values: dict[str, Any], record: AttemptRecord) -> None:
        """Write the end of an attempt. Nothing is done where this very end was written, by a commit whose answer was lost."""
        try:
            self._work.release(lease, {**values, **failure_values(record), **self._summed_usage(record)})
        except LeaseLost:
            if self._written([lease.token]).get(lease.token) != record.result:
                raise
        else:
            if not (_was_not_asked(record) and renew_parking(self._connection, lease, record)):
                write_attempts(self._connection, [(lease, record)])
            self._note(lease, record)

    def _note(self, lease: Lease, record: AttemptRecord) -> None:
        if record.cost_micro_usd:
            whose = select(evaluations.c.workspace_id).where(evaluations.c.id == lease.work_id)
            workspace = self._connection.execute(whose).scalar_one()
            self._expenses.note(workspace, utc_day(record.ended_at), record.cost_micro_usd)

    def in_flight(self) -> Mapping[WorkspaceId, int]:
        """See the port."""
        under_way = evaluations.c.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value])
        # What a batch holds keeps no worker busy.
        counted = select(evaluations.c.workspace_id, func.count().label("n")).where(under_way, is_sent(evaluations))
        rows = self._connection.execute(counted.group_by(evaluations.c.workspace_id))
        return {WorkspaceId(row.workspace_id): row.n for row in rows}

    def wanted_models(self) -> Collection[str]:
        """See the port."""
        return wanted_models(self._connection)

    def begin_dispatch(self) -> UnderWay | None:
        """See the port."""
        return begin_dispatch(self._connection)

    def due(self, room: Room, *, batch: int) -> Sequence[WorkRef]:
        """See the port."""
        chosen = choose_due(self._connection, room, batch=batch)
        queued = {row.id: row for row in self._work.queue(chosen)} if chosen else {}
        return _refs([queued[one] for one in chosen if one in queued])

    def free_expired(self, *, limit: int) -> tuple[int, int]:
        """See the port."""
        expired = self._work.expired(limit=limit, only=~_IN_A_BATCH)
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
        write_evaluation_letters(self._connection, [row.id for row in buried])
        return len(freed), len(buried)

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[WorkRef]:
        """See the port."""
        return _refs(self._work.unsent(older_than_s=older_than_s, waiting=waiting, limit=limit))

    def _summed_usage(self, record: AttemptRecord) -> dict[str, Any]:
        return {name: evaluations.c[name] + value for name, value in usage_values(record).items()}

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
            spec = JudgeSpec(JudgeKind(row.judge), row.model, row.effort, row.max_tokens, row.votes, row.borderline)
            known = RubricVersion(row.id, rubric_from_json(row.content).rubric, spec)
            if len(_VERSIONS) >= _VERSIONS_KEPT:
                _VERSIONS.clear()
            _VERSIONS[version_id] = known
        return known


def _asked() -> Select[Any]:
    """Calls, their evaluations, and what each one's workspace has under way of live work, counted no further than its share."""
    given = [bindparam("call_ids", type_=ARRAY(Uuid)), bindparam("evaluation_ids", type_=ARRAY(Uuid))]
    about = (
        func.unnest(*given)
        .table_valued(column("call_id", Uuid), column("evaluation_id", Uuid), with_ordinality="place")
        .render_derived(name="about")
    )
    named = about.c.evaluation_id
    latest = (
        select(evaluations.c.id, evaluations.c.state)
        .where(evaluations.c.call_id == calls.c.id, named.is_(None) | (evaluations.c.id == named))
        .order_by(evaluations.c.created_at.desc())
        .limit(1)
        .lateral("latest")
    )
    live = (
        select(evaluations.c.id)
        .where(
            evaluations.c.workspace_id == calls.c.workspace_id,
            evaluations.c.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value]),
            is_sent(evaluations),  # as the index has it
            evaluations.c.lane == Lane.LIVE.value,
        )
        .limit(bindparam("share", type_=Integer))
        .correlate(calls)
        .subquery()
    )
    under_way = select(func.count()).select_from(live).scalar_subquery().label("under_way")
    return select(
        about.c.place,
        calls.c.id.label("call_id"),
        calls.c.workspace_id,
        calls.c.agent_id,
        latest.c.id,
        latest.c.state,
        under_way,
    ).select_from(about.join(calls, calls.c.id == about.c.call_id).join(latest, literal(value=True), isouter=True))


def _found(row: Row[Any], share: int) -> Asked:
    key = CallKey(CallId(row.call_id), WorkspaceId(row.workspace_id), row.agent_id)
    return Asked(key, row.id, None if row.state is None else WorkState(row.state), share - row.under_way)


_ASKED = _asked()
# Its answers could not be read.
_UNREAD = (evaluations.c.verdict == Verdict.NEEDS_REVIEW.value) & func.starts_with(evaluations.c.reasons[1], UNREADABLE)
# What a batch holds isn't taken from it, however long nobody looked: its answer is paid for, and asked for once. The job
# that goes on with batches frees what no answer will come for.
_IN_A_BATCH = (evaluations.c.lane == Lane.BATCH.value) & (
    select(batch_items.c.token)
    .join(batches, batches.c.id == batch_items.c.batch_id)
    .where(
        batch_items.c.evaluation_id == evaluations.c.id,
        batch_items.c.token == evaluations.c.lease_token,
        batch_items.c.result.is_(None),
        batches.c.state.in_([state.value for state in OPEN]),
    )
    .exists()
)
UNDECIDED: Mapping[str, Any] = {
    "verdict": None,
    "overall": None,
    "reasons": [],
    "summary": "",
    "dropped_quotes": 0,
    "is_current": False,
    "evaluated_at": None,
    "revived_at": func.clock_timestamp(),
}
"""What tells of an evaluation's end, where it has none."""
# Graded by whoever plays the run, and by nobody as a production call.
_NO_RUNS = evaluations.c.lane != Lane.RUN.value
_VERSIONS: dict[uuid.UUID, RubricVersion] = {}
_VERSIONS_KEPT = 500
_VERSION = select(rubric_versions, rubrics.c.content).join(rubrics, rubrics.c.id == rubric_versions.c.rubric_id)
_OF_CALLS = evaluations.c.call_id == func.any(bindparam("of_calls", type_=ARRAY(Uuid)))
_CLAIM_OF_CALLS = claiming(evaluations, _OF_CALLS)
_CLAIM_SENT_OF_CALLS = claiming(evaluations, _OF_CALLS, evaluations.c.state == WorkState.QUEUED)
_ENSURE = insert(evaluations).on_conflict_do_nothing().returning(evaluations.c.id)
_ADMITTED = (
    update(calls)
    .where(calls.c.id == func.any(bindparam("ids", type_=ARRAY(Uuid))), calls.c.admitted_at.is_(None))
    .values(admitted_at=func.now())
)
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
    .where(evaluations.c.id == func.any(bindparam("ids", type_=ARRAY(Uuid))))
)
# An attempt that ended has a row; one that the sweep gave up on has one, too, and may not be taken for written.
_WRITTEN = select(attempts.c.id, attempts.c.result).where(
    attempts.c.id == func.any(bindparam("tokens", type_=ARRAY(Uuid))), attempts.c.result != "abandoned"
)


def _refs(rows: Sequence[Row[Any]]) -> list[WorkRef]:
    return [
        WorkRef(
            row.id,
            CallId(row.call_id),
            WorkspaceId(row.workspace_id),
            Lane(row.lane),
            alone=row.wait_reason == WORKER_DIED,
        )
        for row in rows
    ]


def _was_not_asked(record: AttemptRecord) -> bool:
    """Whether we ourselves held a request back: it may be held back thousands of times, and nothing happened."""
    return record.failure is not None and record.failure.kind is FailureKind.HELD and record.usage == Usage()


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
