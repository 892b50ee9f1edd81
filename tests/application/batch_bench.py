"""A provider of batches that can be killed at any step, and a bench that drives the batch job with it on real PostgreSQL."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Select, func, select, text, update
from sqlalchemy.pool import QueuePool

from qa_worker.adapters.claude.sizes import StoredSizes
from qa_worker.adapters.postgres.backlog_queries import PostgresBacklogQueries
from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import batch_items, batch_promises, batches, evaluations
from qa_worker.application._batch_steps import BatchRules, BatchTools
from qa_worker.application._grading import Tools
from qa_worker.application.advance_batches import advance_batches
from qa_worker.application.backlog_queries import BatchView
from qa_worker.application.batch_backlog import Submitted, submit_backlog
from qa_worker.application.batching import ItemResult
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.ports import Grading, Wanted
from qa_worker.application.purse import Left
from qa_worker.application.queries import EvaluationView
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.backlog import Selection, Via
from qa_worker.domain.batch import Counts, ProviderBatch, ResultKind
from qa_worker.domain.call import Call
from qa_worker.domain.evaluation import Assessment
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import Rubric
from qa_worker.domain.work import Lane
from tests.builders import a_call, a_grading, an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import USAGE, FixedJitter, FrozenClock, NoContext, NoLeases

GONE = Failure(FailureKind.BLOCKED, "http_404", "Not found.")
CUT = Failure(FailureKind.TRANSIENT, "connection", "The connection was cut.")
POLICY = RetryPolicy(schedule_s=(10, 20), max_attempts=3, unreadable_attempts=2)


class Killed(BaseException):
    """The process ends here: nothing may catch it."""


@dataclass
class _Made:
    requests: dict[str, JudgeRequest]
    created_at: datetime
    ended: bool = False
    cancelled: bool = False


@dataclass
class FakeBatches:
    """Implements `BatchService`. Items end as `endings` says by the call's ref, and else with a good assessment.

    `faults` of an operation come before it is done, one each; `send` with `CUT` has made the batch all the same.
    `kill` names the points at which the process dies, each once.
    """

    uow: UnitsOfWork
    clock: FrozenClock
    max_requests: int = 1000
    endings: dict[str, Assessment | Failure | ResultKind] = field(default_factory=dict)
    faults: dict[str, list[Failure]] = field(default_factory=dict)
    kill: set[str] = field(default_factory=set)
    made: dict[str, _Made] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def draft(self) -> Iterator[_Draft]:
        yield _Draft(self)

    def since(self, at: datetime) -> Sequence[ProviderBatch] | Failure:
        return self._done("since") or [self._shown(one) for one in self.made if self.made[one].created_at >= at]

    def status(self, provider_id: str) -> ProviderBatch | Failure:
        failed = self._done("status") or (GONE if provider_id not in self.made else None)
        return failed or self._shown(provider_id)

    def cancel(self, provider_id: str) -> Failure | None:
        failed = self._done("cancel")
        if failed is None:
            self.made[provider_id].cancelled = self.made[provider_id].ended = True
        return failed

    def results(self, provider_id: str) -> Generator[ItemResult | Failure, None, None]:
        failed = self._done("results")
        lines = [self._result(custom_id, provider_id) for custom_id in self.made[provider_id].requests]
        lines = [line for line in lines if line.kind is not ResultKind.MISSING]
        random.Random(7).shuffle(lines)  # noqa: S311 - an order, no secret
        for number, line in enumerate(lines):
            if failed is not None and number >= len(lines) // 2:
                break
            self.die(f"results {number}")
            yield line
        if failed is not None:
            yield failed

    def read(self, result: ItemResult, *, rubric: Rubric, model: str, provider_id: str) -> JudgeAnswer:
        ending = self.endings.get(result.message.decode(), an_assessment())
        assert not isinstance(ending, ResultKind)
        assert rubric.criteria
        raw = "" if isinstance(ending, Assessment) else "what the model wrote"
        return JudgeAnswer(ending, USAGE, model, provider_id, raw, batch=True)

    def end_all(self) -> None:
        """Every batch is over."""
        for one in self.made.values():
            one.ended = True

    def foreign(self, requests: int, *, at: datetime) -> str:
        """A batch of another program's."""
        name = f"theirs-{len(self.made)}"
        grading = a_grading()
        spec = grading.spec(grading.rubric, None)
        request = JudgeRequest(a_call("theirs"), grading.rubric.rubric, Evidence(), spec, "")
        self.made[name] = _Made({f"theirs-{n}": request for n in range(requests)}, at)
        return name

    def die(self, point: str) -> None:
        """Die here if that is what the test wants."""
        assert isinstance(self.uow.engine.pool, QueuePool)
        assert self.uow.engine.pool.checkedout() == 0, "a connection is held while the provider is waited for"
        if point in self.kill:
            self.kill.discard(point)
            raise Killed(point)

    def send(self, requests: dict[str, JudgeRequest]) -> ProviderBatch | Failure:
        self.die("before send")
        self.calls["send"] += 1
        waiting = self.faults.get("send")
        failed = waiting.pop(0) if waiting else None
        if failed is not None and failed is not CUT:
            return failed
        name = f"ours-{len(self.made)}"
        self.made[name] = _Made(requests, self.clock.now())
        self.die("after send")
        return failed or self._shown(name)

    def _done(self, operation: str) -> Failure | None:
        self.die(f"before {operation}")
        self.calls[operation] += 1
        waiting = self.faults.get(operation)
        return waiting.pop(0) if waiting else None

    def _result(self, custom_id: str, provider_id: str) -> ItemResult:
        if self.made[provider_id].cancelled:
            return ItemResult(custom_id, ResultKind.CANCELED)
        ref = self.made[provider_id].requests[custom_id].call.ref
        ending = self.endings.get(ref)
        if isinstance(ending, ResultKind):
            failed = Failure(FailureKind.TRANSIENT, "batch_error", "Failed.") if ending is ResultKind.ERRORED else None
            return ItemResult(custom_id, ending, failure=failed)
        if isinstance(ending, Failure) and ending.code.startswith("batch_"):
            return ItemResult(custom_id, ResultKind.ERRORED, failure=ending)
        return ItemResult(custom_id, ResultKind.SUCCEEDED, message=ref.encode())

    def _shown(self, provider_id: str) -> ProviderBatch:
        one = self.made[provider_id]
        kinds = (
            Counter(self._result(custom_id, provider_id).kind for custom_id in one.requests) if one.ended else Counter()
        )
        counts = Counts(
            *(
                kinds[kind]
                for kind in (ResultKind.SUCCEEDED, ResultKind.ERRORED, ResultKind.CANCELED, ResultKind.EXPIRED)
            )
        )
        return ProviderBatch(
            provider_id, one.created_at, len(one.requests), one.ended, counts, one.created_at + timedelta(days=1)
        )


class _Draft:
    def __init__(self, service: FakeBatches) -> None:
        self._service = service
        self._requests: dict[str, JudgeRequest] = {}

    @property
    def count(self) -> int:
        return len(self._requests)

    def add(self, custom_id: str, request: JudgeRequest) -> bool:
        self._service.die(f"add {request.call.ref}")
        if self.count >= self._service.max_requests:
            return False
        self._requests[custom_id] = request
        return True

    def send(self) -> ProviderBatch | Failure:
        return self._service.send(self._requests)


class Bench:
    """Stored calls that are submitted to batches, and the job that goes on with them."""

    def __init__(
        self,
        uow: UnitsOfWork,
        *,
        max_requests: int = 1000,
        settle_s: float = 0.0,
        left: Callable[[], Left] = Left,
        grading: Grading | None = None,
    ) -> None:
        self.uow = uow
        self.clock = FrozenClock()
        self.service = FakeBatches(uow, self.clock)
        self.left = left
        self.steps = 0
        self.grading = grading or a_grading()
        self.rules = BatchRules(max_requests=max_requests, lease_s=100_000, poll_s=60, settle_s=settle_s)

    def store(self, *refs: str, workspace: str = "w") -> Self:
        """Calls that nobody has asked about."""
        with self.uow() as work:
            work.calls.add_all([a_call(ref) for ref in refs], workspace_name=workspace)
            work.commit()
        return self

    def hand_over(self, *made: Call, wanted: Wanted | None = None) -> list[Accepted]:
        """Calls as a backend hands them over."""
        answers = submit_calls(
            made, workspace_name="w", uow=self.uow, grading=self.grading, in_flight_limit=0, wanted=wanted or Wanted()
        )
        return [answer for answer in answers if isinstance(answer, Accepted)]

    def submit(self, *refs: str, workspace: str = "w", via: Via = Via.BATCH) -> Submitted:
        """Store calls and submit everything."""
        if refs:
            self.store(*refs, workspace=workspace)
        return submit_backlog(units=self.uow, grading=self.grading, selection=Selection(), via=via)

    def advance(self) -> int:
        """One run of the batch job."""
        return advance_batches(tools=self.tools()).steps

    def advance_until_killed(self) -> bool:
        """One run, by a worker that may die; then its lease has run out."""
        try:
            self.steps = self.advance()
        except Killed:
            self.age()
            return True
        return False

    def age(self) -> None:
        """Time passes: everything is due, the leases of dead workers are over."""
        assert self.promised() == self.estimated()
        with self.uow.engine.begin() as connection:
            past = text("clock_timestamp() - interval '1 s'")
            connection.execute(update(batches).values(next_look_at=past))
            connection.execute(update(batches).where(batches.c.lease_token.is_not(None)).values(lease_until=past))
            connection.execute(update(evaluations).values(not_before=past))

    def promised(self) -> Counter[uuid.UUID]:
        """What is booked that open batches will cost, by workspace."""
        sent = batches.c.state.in_(["creating", "in_progress", "ended"])
        booked = select(batch_promises.c.workspace_id, batch_promises.c.micro_usd).join(batches).where(sent)
        return self._summed(booked)

    def estimated(self) -> Counter[uuid.UUID]:
        """What their items without a result were estimated to cost."""
        sent = batches.c.state.in_(["creating", "in_progress", "ended"])
        items = select(batch_items.c.workspace_id, batch_items.c.estimate_micro_usd).join(batches)
        return self._summed(items.where(sent, batch_items.c.result.is_(None)))

    def _summed(self, query: Select[Any]) -> Counter[uuid.UUID]:
        summed: Counter[uuid.UUID] = Counter()
        with self.uow.engine.connect() as connection:
            for workspace, micro_usd in connection.execute(query):
                summed[workspace] += micro_usd
        return +summed

    def run_to_the_end(self) -> None:
        """All that can happen happens, however often workers die."""
        for _ in range(60):
            self.age()
            self.service.end_all()
            if not self.advance_until_killed() and not self.steps:
                return
        raise AssertionError("it goes round for ever")

    def tools(self, *, with_key: bool = True) -> BatchTools:
        grading = Tools(
            uow=self.uow,
            records=DirectRecords(self.uow),
            leases=NoLeases(),
            context=NoContext(),
            judges={},
            clock=self.clock,
            jitter=FixedJitter(),
            policy=POLICY,
            grading=self.grading,
            lease_s=60,
        )
        return BatchTools(
            units=self.uow,
            grading=grading,
            service=self.service if with_key else None,
            left=self.left,
            sizer=StoredSizes(),
            rules=self.rules,
        )

    def rows(self) -> list[Any]:
        """The batches, the oldest first, without those that only remember somebody else's."""
        with self.uow.engine.connect() as connection:
            ours = select(batches).where(batches.c.model != "").order_by(batches.c.created_at, batches.c.id)
            return list(connection.execute(ours))

    def states(self) -> list[str]:
        """The state of every batch."""
        return [row.state for row in self.rows()]

    def open(self) -> tuple[BatchView, ...]:
        """Open batches as people see them."""
        return PostgresBacklogQueries(self.uow.engine).status().open

    def views(self) -> dict[str, EvaluationView]:
        """Every evaluation by its call's ref; a call has one here."""
        with self.uow.engine.connect() as connection:
            ids = list(connection.execute(select(evaluations.c.id)).scalars())
        return {view.ref: view for view in PostgresQueries(self.uow.engine).evaluations(ids)}

    def verdicts(self) -> Counter[str | None]:
        """How many evaluations have which verdict."""
        return Counter(view.verdict for view in self.views().values())

    def lanes(self) -> Counter[Lane]:
        """How much pending work is in which lane."""
        pending = select(evaluations.c.lane).where(evaluations.c.state == "pending")
        with self.uow.engine.connect() as connection:
            return Counter(Lane(lane) for lane in connection.execute(pending).scalars())

    def results(self) -> Counter[str | None]:
        """How many items have which result."""
        with self.uow.engine.connect() as connection:
            return Counter(connection.execute(select(batch_items.c.result)).scalars())

    def nobody_looks_for_days(self) -> None:
        """The leases of all that batches hold run out."""
        with self.uow.engine.begin() as connection:
            running = evaluations.c.state == "running"
            connection.execute(
                update(evaluations).where(running).values(lease_until=func.now() - text("interval '1 s'"))
            )

    def sweep(self) -> tuple[int, int]:
        """Free what dead workers held."""
        with self.uow() as work:
            freed = work.evaluations.free_expired(limit=1000)
            work.commit()
        return freed

    def lose_leases(self) -> None:
        """Everything is taken away from batches, as the sweep of an older release did."""
        self.nobody_looks_for_days()
        with self.uow.engine.begin() as connection:
            connection.execute(update(evaluations).values(lane=Lane.BACKLOG.value))
        self.sweep()
        with self.uow.engine.begin() as connection:
            connection.execute(update(evaluations).values(lane=Lane.BATCH.value))
