"""The order in which every request to a model leaves: budget -> limiter -> breaker -> request -> account.

Judge and players of scenarios pass here alike. What is held back was never sent: it costs no attempt and no slot for
longer than `patience_s`, and waits in its row for as long as the failure says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import SPENT, Admission, Budget, Gate, Limiter, Need, NoRoom, Permit, Verdict
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind

SERVICE = "claude"
PATIENCE_S = 2.0
LOOK_AGAIN_S = 15.0
"""A row never waits longer than this for a closed gate: the dispatcher sends it only when the gate lets it through, and
at once when that is sooner than was thought."""
_DOWN = frozenset({FailureKind.TRANSIENT, FailureKind.OVERLOADED})
SPEND_CAP_PAUSE_S = 300.0
"""The provider's spend limit is raised by a person, or ends with the month: one request in five minutes asks for all."""
_ABOUT_US = frozenset({FailureKind.RATE_LIMITED, FailureKind.REJECTED, FailureKind.BLOCKED, FailureKind.SPEND_CAP})
# We had no free connection: that says nothing of the service.
_OUR_OWN = frozenset({"pool_timeout"})


class Answered(Protocol):
    """What is looked at of an answer, whatever was asked."""

    @property
    def result(self) -> object:
        """What was wanted, or the `Failure` that prevented it."""
        ...

    @property
    def usage(self) -> Usage:
        """Whatever was billed."""
        ...

    @property
    def limits(self) -> RateLimits | None:
        """What the provider said of its limits."""
        ...


_Answer = TypeVar("_Answer", bound=Answered)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request before it leaves. `key` is the workspace's id; `need` is asked for when the budget has let it pass."""

    model: str
    key: str
    need: Callable[[], Need]
    can_wait: bool = False


class ModelCalls:
    """Lets requests leave. `patience_s`: how long a slot may wait for room."""

    def __init__(
        self,
        *,
        budget: Budget,
        gate: Gate,
        limiter: Limiter,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._budget = budget
        self._gate = gate
        self._limiter = limiter
        self._patience_s = patience_s
        self._sleep = sleep
        self._share = 1.0

    async def send(self, wanted: ModelCall, ask: Callable[[], Awaitable[_Answer]]) -> _Answer | Failure:
        """The answer of `ask`. A `HELD` failure says why it was not called and when to try again."""
        spent = await self._budget.exceeded(wanted.key)
        if spent is not None:
            return _held(SPENT, spent.reason, spent.wait_s)
        # Room first: it may be waited for, and a gate that closes meanwhile must still hold this request back.
        room = await self._room(wanted)
        if isinstance(room, NoRoom):
            return _held("limit_used_up", "The provider's limits are used up for now.", room.wait_s)
        admission = await self._gate.admit(SERVICE)
        self._share = admission.share
        if admission.open_for_s > 0:
            await self._limiter.settle(room, None)
            message = "The service is down; requests wait until it answers again."
            return _held("breaker_open", message, min(admission.open_for_s, LOOK_AGAIN_S))
        return await self._send(ask, admission, room)

    async def _room(self, wanted: ModelCall) -> Permit | NoRoom:
        need = wanted.need()
        patience_s = self._patience_s
        while True:
            room = await self._limiter.reserve(wanted.model, need, share=self._share, can_wait=wanted.can_wait)
            if isinstance(room, Permit) or room.wait_s > patience_s:
                return room
            patience_s -= room.wait_s
            await self._sleep(room.wait_s)

    async def _send(self, ask: Callable[[], Awaitable[_Answer]], admission: Admission, permit: Permit) -> _Answer:
        try:
            answer = await ask()
        except BaseException:
            # A fault of ours, or the process is stopping: the service is not to blame.
            await self._gate.report(SERVICE, Verdict.SILENT, admission)
            await self._limiter.settle(permit, None)
            raise
        await self._gate.report(SERVICE, _verdict(answer, admission), admission)
        await self._account(permit, answer)
        return answer

    async def _account(self, permit: Permit, answer: Answered) -> None:
        # An answer without usage (429, 5xx) took nothing of the token meters.
        await self._limiter.settle(permit, answer.usage)
        if answer.limits is not None:
            await self._limiter.learn(permit.model, answer.limits)
        pause_s = _pause_s(answer.result)
        if pause_s:
            await self._limiter.pause(permit.model, pause_s)


def _pause_s(result: object) -> float:
    """For how long nobody asks this model, because of what it answered one of us."""
    if not isinstance(result, Failure):
        return 0.0
    if result.kind is FailureKind.SPEND_CAP:
        return SPEND_CAP_PAUSE_S
    return (result.retry_after_s or 0.0) if result.kind is FailureKind.RATE_LIMITED else 0.0


def _verdict(answer: Answered, admission: Admission) -> Verdict:
    if not isinstance(answer.result, Failure):
        return Verdict.UP
    if answer.result.code in _OUR_OWN:
        return Verdict.SILENT
    if answer.result.kind in _DOWN:
        return Verdict.DOWN
    # A 429 says nothing of the service's health, except to a probe, which only asked whether anyone answers.
    return Verdict.SILENT if answer.result.kind in _ABOUT_US and not admission.probe else Verdict.UP


def _held(code: str, message: str, wait_s: float) -> Failure:
    return Failure(FailureKind.HELD, code, message, retry_after_s=wait_s)
