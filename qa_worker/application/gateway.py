"""The one place that every model call passes: budget -> breaker -> limiter -> request -> classify -> account.

What is held back here was never sent: it costs no attempt and no slot for longer than `patience_s`, and waits in its
row for as long as the answer says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Admission, Budget, Gate, Limiter, MeteredJudge, NoRoom, Permit, Verdict
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind

SERVICE = "claude"
PATIENCE_S = 2.0
LOOK_AGAIN_S = 15.0
"""A row never waits longer than this for a closed gate: the dispatcher sends it only when the gate lets it through, and
at once when that is sooner than was thought."""
_DOWN = frozenset({FailureKind.TRANSIENT, FailureKind.OVERLOADED})
_ABOUT_US = frozenset({FailureKind.RATE_LIMITED, FailureKind.REJECTED, FailureKind.BLOCKED, FailureKind.SPEND_CAP})
# We had no free connection: that says nothing of the service.
_OUR_OWN = frozenset({"pool_timeout"})


class Gateway:
    """Implements `AsyncJudge` in front of another one. `patience_s`: how long a slot may wait for room."""

    def __init__(
        self,
        judge: MeteredJudge,
        *,
        budget: Budget,
        gate: Gate,
        limiter: Limiter,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._judge = judge
        self._budget = budget
        self._gate = gate
        self._limiter = limiter
        self._patience_s = patience_s
        self._sleep = sleep
        self._share = 1.0

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """See the port. A `HELD` failure says why nothing was sent and when to try again."""
        spent = await self._budget.exceeded(request.key)
        if spent is not None:
            return _held(request, "budget_spent", spent.reason, spent.wait_s)
        # Room first: it may be waited for, and a gate that closes meanwhile must still hold this request back.
        room = await self._room(request)
        if isinstance(room, NoRoom):
            return _held(request, "limit_used_up", "The provider's limits are used up for now.", room.wait_s)
        admission = await self._gate.admit(SERVICE)
        self._share = admission.share
        if admission.open_for_s > 0:
            await self._limiter.settle(room, None)
            message = "The service is down; requests wait until it answers again."
            return _held(request, "breaker_open", message, min(admission.open_for_s, LOOK_AGAIN_S))
        return await self._send(request, admission, room)

    async def _room(self, request: JudgeRequest) -> Permit | NoRoom:
        need = self._judge.need(request)
        patience_s = self._patience_s
        while True:
            room = await self._limiter.reserve(request.spec.model, need, share=self._share, can_wait=request.can_wait)
            if isinstance(room, Permit) or room.wait_s > patience_s:
                return room
            patience_s -= room.wait_s
            await self._sleep(room.wait_s)

    async def _send(self, request: JudgeRequest, admission: Admission, permit: Permit) -> JudgeAnswer:
        try:
            answer = await self._judge.grade(request)
        except BaseException:
            # A fault of ours, or the process is stopping: the service is not to blame.
            await self._gate.report(SERVICE, Verdict.SILENT, admission)
            await self._limiter.settle(permit, None)
            raise
        await self._gate.report(SERVICE, _verdict(answer, admission), admission)
        await self._account(permit, answer)
        return answer

    async def _account(self, permit: Permit, answer: JudgeAnswer) -> None:
        # An answer without usage (429, 5xx) took nothing of the token meters.
        await self._limiter.settle(permit, answer.usage)
        if answer.limits is not None:
            await self._limiter.learn(permit.model, answer.limits)
        failure = answer.result
        if isinstance(failure, Failure) and failure.kind is FailureKind.RATE_LIMITED and failure.retry_after_s:
            await self._limiter.pause(permit.model, failure.retry_after_s)


def _verdict(answer: JudgeAnswer, admission: Admission) -> Verdict:
    if not isinstance(answer.result, Failure):
        return Verdict.UP
    if answer.result.code in _OUR_OWN:
        return Verdict.SILENT
    if answer.result.kind in _DOWN:
        return Verdict.DOWN
    # A 429 says nothing of the service's health, except to a probe, which only asked whether anyone answers.
    return Verdict.SILENT if answer.result.kind in _ABOUT_US and not admission.probe else Verdict.UP


def _held(request: JudgeRequest, code: str, message: str, wait_s: float) -> JudgeAnswer:
    failure = Failure(FailureKind.HELD, code, message, retry_after_s=wait_s)
    return JudgeAnswer(failure, Usage(), request.spec.model, None, "")
