"""The state machine of work, driven in random order against real PostgreSQL."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select, text, update

from qa_worker.adapters.postgres.tables import attempts, evaluations, metadata
from qa_worker.application.ports import AttemptRecord, CallKey, Room, WorkRef
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.verdict import decide
from qa_worker.domain.work import FINAL, TRANSITIONS, Lease, WorkState
from tests.builders import a_call, a_grading, a_rubric, a_transcript, an_assessment
from tests.conftest import UnitsOfWork

pytestmark = pytest.mark.services

MAX_ATTEMPTS = 3
ANSWER = decide(an_assessment(), rubric=a_rubric(), transcript=a_transcript())


def _record(result: str, *, failed: bool = False) -> AttemptRecord:
    failure = Failure(FailureKind.TRANSIENT, "http_500", "The service failed.") if failed else None
    return AttemptRecord(result, datetime.now(UTC), Usage(input_tokens=10, output_tokens=5), "m", 7, None, failure)


class WorkMachine(RuleBasedStateMachine):
    """Two calls; claims, crashes, late results, sweeps in any order."""

    leases: Bundle[Lease] = Bundle("leases")
    uow: UnitsOfWork

    def __init__(self) -> None:
        super().__init__()
        with self.uow.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        accepted = submit_calls(
            [a_call("one"), a_call("two")],
            workspace_name="w",
            uow=self.uow,
            grading=a_grading(max_attempts=MAX_ATTEMPTS),
            in_flight_limit=10,
        )
        self.ids = [answer.evaluation_id for answer in accepted if isinstance(answer, Accepted)]
        self.states = dict.fromkeys(self.ids, WorkState.QUEUED)
        self.valid: dict[uuid.UUID, uuid.UUID] = {}
        self.ended: dict[uuid.UUID, str] = {}
        self.accepted = [answer for answer in accepted if isinstance(answer, Accepted)]
        self.recorded: dict[uuid.UUID, int] = dict.fromkeys(self.ids, 0)

    @rule(target=leases, which=st.integers(0, 1))
    def claim(self, which: int) -> Lease:
        work_id = self.ids[which]
        free = self.states[work_id] in (WorkState.PENDING, WorkState.QUEUED)
        with self.uow() as work:
            claimed = work.evaluations.claim([work_id], lease_s=60)
            work.commit()
        if not claimed:
            assert not free or self._waits(work_id)
            return Lease(work_id, uuid.uuid4(), 1, MAX_ATTEMPTS, datetime.now(UTC))
        assert free
        self.valid[work_id] = claimed[0].lease.token
        return claimed[0].lease

    @rule(lease=leases)
    def finish(self, lease: Lease) -> None:
        key, record = self._key(lease), _record("done")
        self._write(lease, "done", lambda work: work.finish(lease, key, ANSWER, Evidence(), record), final=True)

    @rule(lease=leases, counts=st.booleans(), wait_s=st.sampled_from([-1, 60]))
    def wait(self, lease: Lease, counts: bool, wait_s: int) -> None:  # noqa: FBT001 - hypothesis passes it by name
        record = _record("retry" if counts else "parked", failed=True)
        self._write(
            lease, record.result, lambda work: work.wait(lease, wait_s=wait_s, reason="x", counts=counts, record=record)
        )

    @rule(lease=leases)
    def bury(self, lease: Lease) -> None:
        record = _record("dead", failed=True)
        self._write(lease, "dead", lambda work: work.bury(lease, evidence=None, record=record), final=True)

    @rule()
    def every_worker_dies(self) -> None:
        with self.uow.engine.begin() as connection:
            running = evaluations.c.state == "running"
            connection.execute(
                update(evaluations).where(running).values(lease_until=func.now() - text("'1 s'::interval"))
            )

    @rule()
    def sweep(self) -> None:
        with self.uow() as work:
            work.evaluations.free_expired(limit=10)
            work.commit()

    @rule()
    def dispatch(self) -> None:
        with self.uow() as work:
            refs: list[WorkRef] = list(work.evaluations.due(Room(live=10, backlog=10), batch=10))
            work.commit()
        assert all(self.states[ref.evaluation_id] is WorkState.PENDING for ref in refs)

    @invariant()
    def every_change_is_one_that_the_domain_knows(self) -> None:
        for row in self._rows():
            before, after = self.states[row.id], WorkState(row.state)
            # Between two looks a row can go on by one claim and one end at most.
            known = before is after or (before, after) in TRANSITIONS
            assert known, (before, after)
            assert not (before in FINAL and after is not before)
            assert 0 <= row.attempt <= MAX_ATTEMPTS
            assert (row.verdict is not None) == (after in FINAL)
            self.states[row.id] = after

    @invariant()
    def one_attempt_row_for_each_ended_claim(self) -> None:
        with self.uow.engine.connect() as connection:
            counted = select(attempts.c.evaluation_id, func.count().label("n")).group_by(attempts.c.evaluation_id)
            for row in connection.execute(counted):
                assert row.n >= self.recorded[row.evaluation_id]

    def _write(self, lease: Lease, result: str, write: object, *, final: bool = False) -> None:
        assert callable(write)
        holds = self.valid.get(lease.work_id) == lease.token and self.states[lease.work_id] is WorkState.RUNNING
        # The same end of the same attempt once more: a commit whose answer was lost. It changes nothing.
        again = self.ended.get(lease.token) == result
        try:
            with self.uow() as work:
                write(work.evaluations)
                work.commit()
        except LeaseLost:
            assert not holds
            assert not again
        else:
            if again:
                return
            assert holds
            self.ended[lease.token] = result
            self.recorded[lease.work_id] += 1
            del self.valid[lease.work_id]
            if final:
                assert self.recorded[lease.work_id] >= 1

    def _key(self, lease: Lease) -> CallKey:
        call_id = next(one.call_id for one in self.accepted if one.evaluation_id == lease.work_id)
        with self.uow() as work:
            (key,) = work.calls.keys([call_id])
        return key

    def _waits(self, work_id: uuid.UUID) -> bool:
        return any(row.id == work_id and row.not_before > datetime.now(UTC) for row in self._rows())

    def _rows(self) -> list[Any]:
        with self.uow.engine.connect() as connection:
            return list(connection.execute(select(evaluations)))


def test_no_order_of_events_breaks_the_state_machine(uow: UnitsOfWork) -> None:
    machine = type("Machine", (WorkMachine,), {"uow": uow})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
