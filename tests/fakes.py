"""Fakes that implement our ports. They check what the real ones rely on: no connection is held while a judge thinks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from qa_worker.application.judging import JudgeAnswer, JudgeRequest, RateLimits
from qa_worker.application.limits import (
    Admission,
    Brakes,
    BucketStatus,
    Exceeded,
    GateStatus,
    Need,
    NoRoom,
    Permit,
    Verdict,
)
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.work import Lease

USAGE = Usage(input_tokens=1000, cache_read_tokens=500, output_tokens=200, thinking_tokens=50)


class AnyRoom:
    """A limiter with room for everybody."""

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit | NoRoom:
        return Permit(model, need, shared=True)

    async def settle(self, permit: Permit, usage: Usage | None) -> None:
        """Nothing is kept."""

    async def pause(self, model: str, seconds: float) -> None:
        """Nothing is kept."""

    async def ease(self, model: str) -> None:
        """Nothing is kept."""

    async def cap(self, permit: Permit, seconds: float) -> None:
        """Nothing is kept."""

    async def learn(self, model: str, limits: RateLimits) -> None:
        """Nothing is kept."""

    async def room(self, model: str, *, within_s: float, share: float = 1.0) -> float | None:
        raise AssertionError("a dispatcher asks this")

    async def status(self, model: str) -> tuple[BucketStatus, ...]:
        raise AssertionError("people ask this")

    async def brakes(self, model: str) -> Brakes:
        raise AssertionError("people ask this")


class NoBudget:
    """Nothing is ever spent."""

    async def exceeded(self, workspace: str) -> Exceeded | None:
        return None


class OpenGate:
    """A service that is always up."""

    async def admit(self, service: str) -> Admission:
        return Admission()

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        """Nothing is kept."""

    async def status(self, service: str) -> GateStatus:
        raise AssertionError("people ask this")


class FrozenClock:
    """Time stands still until it is moved."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at or datetime.now(UTC)

    def now(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class FixedJitter:
    """Always the middle of the spread, so that the schedule holds to the second."""

    def fraction(self) -> float:
        return 0.5


Step = Assessment | Failure | BaseException
# Nothing was answered, so nothing is billed.
_TURNED_AWAY = frozenset({FailureKind.RATE_LIMITED, FailureKind.HELD, FailureKind.SPEND_CAP, FailureKind.BLOCKED})


@dataclass
class ScriptedJudge:
    """Answers with the steps of a script in turn, the last one for ever. An exception is raised."""

    script: Sequence[Step]
    engine: Engine | None = None
    on_call: Callable[[JudgeRequest], None] = lambda _request: None
    requests: list[JudgeRequest] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def grade(self, request: JudgeRequest) -> JudgeAnswer:
        with self.lock:
            step = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(request)
        if self.engine is not None:
            assert isinstance(self.engine.pool, QueuePool)
            assert self.engine.pool.checkedout() == 0, "a connection is held while the judge is waited for"
        self.on_call(request)
        if isinstance(step, BaseException):
            raise step
        raw = "" if isinstance(step, Assessment) else "what the model wrote"
        turned_away = isinstance(step, Failure) and step.kind in _TURNED_AWAY
        return JudgeAnswer(step, Usage() if turned_away else USAGE, request.spec.model, "req_1", raw)

    def grade_each(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[int, JudgeAnswer | Exception]]:
        for number, request in enumerate(requests):
            try:
                yield number, self.grade(request)
            except ArithmeticError as error:
                yield number, error


class NoContext:
    """Logs nothing."""

    def bind(self, **ids: str | int) -> None:
        assert ids

    def fault(self, error: Exception, **ids: str | int) -> None:
        assert ids


class NoLeases:
    """Holds nothing: the lease that was claimed has to be long enough."""

    @contextmanager
    def hold(self, leases: Sequence[Lease]) -> Iterator[None]:
        assert all(lease.attempt > 0 for lease in leases)
        yield


class NoPace:
    """Holds nothing back."""

    def room(self, models: Collection[str]) -> Mapping[str, int]:
        assert all(models)
        return {}
