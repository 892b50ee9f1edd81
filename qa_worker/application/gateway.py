"""The gateway in front of the judge: what its requests pass is in `model_calls`, and the same for every other request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Budget, Gate, Limiter, MeteredJudge
from qa_worker.application.model_calls import DEADLINE_S, LOOK_AGAIN_S, PATIENCE_S, SERVICE, ModelCall, ModelCalls
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure

__all__ = ["LOOK_AGAIN_S", "SERVICE", "Gateway"]


class Gateway:
    """Implements `AsyncJudge` in front of another one. `patience_s`: how long a slot may wait for room.

    `deadline_s` after a call's first request left, its last one ends, and so does a probe.
    """

    def __init__(
        self,
        judge: MeteredJudge,
        *,
        budget: Budget,
        gate: Gate,
        limiter: Limiter,
        deadline_s: float = DEADLINE_S,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._judge = judge
        self._deadline_s = deadline_s
        self._calls = ModelCalls(
            budget=budget,
            gate=gate,
            limiter=limiter,
            probe_within_s=deadline_s,
            patience_s=patience_s,
            sleep=sleep,
        )

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """See the port. A `HELD` failure says why nothing was sent and when to try again."""
        wanted = ModelCall(
            request.spec.model, request.key, lambda: self._judge.need(request), self._deadline_s, request.can_wait
        )
        answer = await self._calls.send(wanted, lambda: self._judge.grade(request))
        if isinstance(answer, Failure):
            return JudgeAnswer(answer, Usage(), request.spec.model, None, "")
        return answer
