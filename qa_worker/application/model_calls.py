"""The order in which every request to a model leaves: budget -> limiter -> breaker -> request -> account.

Judge and players of scenarios pass here alike. What is held back was never sent: it costs no attempt and no slot for
longer than `patience_s`, and waits in its row for as long as the failure says. A quick retry is a request like any other:
it passes all of this again, or isn't made.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import SPENT, Budget, Gate, Limiter, Need, Permit, Verdict
from qa_worker.application.quick_retries import WITHIN_S, is_quick, more_tries
from qa_worker.domain.breaker import is_outage
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import SPEND_CAP, Failure, FailureKind, deadline

SERVICE = "claude"
PATIENCE_S = 2.0
DEADLINE_S = 60.0
"""Of a request, where nobody says otherwise."""
LOOK_AGAIN_S = 15.0
"""A row never waits longer than this for a closed gate or the provider's spend limit: the dispatcher sends it only when
those let it through, and at once when that is sooner than was thought."""
SPEND_CAP_PAUSE_S = 300.0
"""The provider's spend limit is raised by a person, or ends with the month: one request in five minutes asks for all."""
UNTOLD_PAUSE_S = 1.0
"""After a 429 that doesn't say how long to wait."""
_CAPPED = "The spend limit of the Claude account is reached. Raise it or add credit in the Claude console."
# Nothing was sent, or nobody knows whether it was: that says nothing of the service, not even to a probe.
_UNSENT = frozenset({"pool_timeout", "bad_address", "sdk"})


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
    """One request before it leaves. `key` is the workspace's id; `need` is asked for when the budget has let it pass.

    `within_s` seconds after the first try left, the last one ends.
    """

    model: str
    key: str
    need: Callable[[], Need]
    within_s: float
    can_wait: bool = False


@dataclass(slots=True)
class _Patience:
    """How long one call may still wait for room, over all its tries."""

    left_s: float


@dataclass(frozen=True, slots=True)
class _Sent(Generic[_Answer]):
    """A request that left, and what came of it. See `Tried`."""

    answer: _Answer | Failure
    again: bool
    left_at: float


class ModelCalls:
    """Lets requests leave. `patience_s`: how long a slot may wait for room.

    `probe_within_s`: a probe ends by then, whatever time its request has: before its lease does, or there would be two.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        gate: Gate,
        limiter: Limiter,
        probe_within_s: float = DEADLINE_S,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = budget
        self._gate = gate
        self._limiter = limiter
        self._probe_within_s = probe_within_s
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock
        self._share = 1.0

    async def send(self, wanted: ModelCall, ask: Callable[[], Awaitable[_Answer]]) -> _Answer | Failure:
        """The answer of `ask`. A `HELD` failure says why it was not called and when to try again.

        `ask` has a deadline of its own, `wanted.within_s` at most; a retry gets what the tries before it left of that.
        """
        patience = _Patience(self._patience_s)
        room = await self._room(wanted, patience)
        if isinstance(room, Failure):
            return room
        first = await self._leave(ask, room)
        if isinstance(first, Failure) or not first.again:
            return first if isinstance(first, Failure) else first.answer

        def since_s() -> float:
            return self._clock() - first.left_at

        async def retried(before: _Sent[_Answer]) -> _Sent[_Answer]:
            room = await self._room(wanted, patience)
            if isinstance(room, Failure):
                return replace(before, again=False)
            left_s = wanted.within_s - since_s()
            if since_s() > WITHIN_S or left_s <= 0:
                await self._limiter.settle(room, None)
                return replace(before, again=False)
            sent = await self._leave(ask, room, within_s=left_s)
            # What can't leave now leaves it at the answer that came: that one was sent, and its attempt counts.
            return replace(before, again=False) if isinstance(sent, Failure) else sent

        return (await more_tries(first, retried, since_s=since_s, sleep=self._sleep)).answer

    async def _room(self, wanted: ModelCall, patience: _Patience) -> Permit | Failure:
        """Room first: it may be waited for, and a gate that closes meanwhile must still hold the request back."""
        spent = await self._budget.exceeded(wanted.key)
        if spent is not None:
            return _held(SPENT, spent.reason, spent.wait_s)
        need = wanted.need()
        while True:
            room = await self._limiter.reserve(wanted.model, need, share=self._share, can_wait=wanted.can_wait)
            if isinstance(room, Permit):
                return room
            if room.capped:
                return _held(SPEND_CAP, _CAPPED, min(room.wait_s, LOOK_AGAIN_S))
            if room.wait_s > patience.left_s:
                return _held("limit_used_up", "The provider's limits are used up for now.", room.wait_s)
            patience.left_s -= room.wait_s
            await self._sleep(room.wait_s)

    async def _leave(
        self, ask: Callable[[], Awaitable[_Answer]], permit: Permit, *, within_s: float | None = None
    ) -> _Sent[_Answer] | Failure:
        admission = await self._gate.admit(SERVICE)
        self._share = admission.share
        if admission.open_for_s > 0:
            await self._limiter.settle(permit, None)
            message = "The service is down; requests wait until it answers again."
            return _held("breaker_open", message, min(admission.open_for_s, LOOK_AGAIN_S))
        if admission.probe or permit.probe:
            within_s = min(self._probe_within_s, math.inf if within_s is None else within_s)
        left_at = self._clock()
        try:
            answer = await ask() if within_s is None else await _in_time(ask, within_s)
        except BaseException:
            # A fault of ours, or the process is stopping: the service is not to blame.
            await self._gate.report(SERVICE, Verdict.SILENT, admission)
            await self._limiter.settle(permit, None)
            raise
        result = answer if isinstance(answer, Failure) else answer.result
        await self._gate.report(SERVICE, verdict_of(result, probe=bool(admission.probe)), admission)
        await self._account(permit, answer, result)
        return _Sent(answer, again=is_quick(result) and not admission.probe, left_at=left_at)

    async def _account(self, permit: Permit, answer: Answered | Failure, result: object) -> None:
        # An answer without usage (429, 5xx) took nothing of the token meters.
        await self._limiter.settle(permit, Usage() if isinstance(answer, Failure) else answer.usage)
        if not isinstance(answer, Failure) and answer.limits is not None:
            await self._limiter.learn(permit.model, answer.limits)
        if not isinstance(result, Failure):
            return
        if result.kind is FailureKind.SPEND_CAP:
            await self._limiter.cap(permit, SPEND_CAP_PAUSE_S)
        elif result.kind is FailureKind.OVERLOADED:
            await self._limiter.ease(permit.model)
        elif result.kind is FailureKind.RATE_LIMITED:
            await self._limiter.pause(permit.model, result.retry_after_s or UNTOLD_PAUSE_S)


async def _in_time(ask: Callable[[], Awaitable[_Answer]], within_s: float) -> _Answer | Failure:
    try:
        async with asyncio.timeout(within_s) as limit:
            return await ask()
    except TimeoutError:
        if not limit.expired():
            raise
        return deadline()


def verdict_of(result: object, *, probe: bool) -> Verdict:
    """What came of a request says so much of the service. A `probe` only asked whether the service answers at all."""
    if not isinstance(result, Failure):
        return Verdict.UP
    if result.code in _UNSENT:
        return Verdict.SILENT
    if is_outage(result):
        return Verdict.DOWN
    if result.kind is FailureKind.UNREADABLE:
        return Verdict.UP
    if not probe:
        return Verdict.SILENT
    # Who answers a probe in the service's place doesn't open the gate, and doesn't close it either.
    return Verdict.DOWN if result.code == "bad_response" else Verdict.UP


def _held(code: str, message: str, wait_s: float) -> Failure:
    return Failure(FailureKind.HELD, code, message, retry_after_s=wait_s)
