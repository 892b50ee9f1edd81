"""More answers about a call whose score lies too near to the threshold for one: their median is what is decided from.

It stands in front of the gateway, so that budget, breaker and limits hold for each request, and behind the first answer
the others read their static part from the provider's cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, replace

from qa_worker.application.judging import AsyncJudge, JudgeAnswer, JudgeRequest
from qa_worker.domain import rules
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import Severity
from qa_worker.domain.votes import is_borderline, majority

PATIENCE_S = 10.0
"""How long a slot waits for room for further answers. Longer than for a first one: a row that goes back to wait loses
the answer that was paid for, and its attempt counts."""


class VotingJudge:
    """Implements `AsyncJudge` in front of another one. `patience_s` bounds the waits of each further request."""

    def __init__(
        self,
        judge: AsyncJudge,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._judge = judge
        self._patience_s = patience_s
        self._sleep = sleep

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """See the port. `usage` is that of all the requests together, `usages` that of each."""
        first = await self._judge.grade(request)
        if not needs_votes(request, first):
            return first
        others = await asyncio.gather(
            *(self._further(request) for _ in range(request.spec.votes - 1)), return_exceptions=True
        )
        # All have ended by now: none goes on unseen while a fault of ours in one of them is reported.
        for other in others:
            if isinstance(other, BaseException):
                raise other
        return _combined([first, *(other for other in others if isinstance(other, JudgeAnswer))], request.spec.votes)

    async def _further(self, request: JudgeRequest) -> JudgeAnswer:
        patience_s = self._patience_s
        while True:
            answer = await self._judge.grade(request)
            wait_s = _held_for_s(answer)
            if wait_s is None or wait_s > patience_s:
                return answer
            patience_s -= wait_s
            await self._sleep(wait_s)


def needs_votes(request: JudgeRequest, answer: JudgeAnswer) -> bool:
    """Whether the rubric version asks for more answers than this one.

    The score that counts is the one after what evidence has proven. Where that alone fails the call, no vote can change
    the verdict, and none is paid for.
    """
    if request.spec.votes == 1 or not isinstance(answer.result, Assessment):
        return False
    rubric, evidence = request.rubric, request.evidence
    if any(finding.severity is Severity.CRITICAL for finding in rules.established(evidence, rubric=rubric)):
        return False
    capped = rules.capped(answer.result, evidence, rubric=rubric)
    return is_borderline(capped, rubric=rubric, points=request.spec.borderline)


def _held_for_s(answer: JudgeAnswer) -> float | None:
    """How long to wait with a request that our own gateway held back; None where it was sent."""
    failure = answer.result
    return failure.retry_after_s if isinstance(failure, Failure) and failure.kind is FailureKind.HELD else None


def _combined(answers: Sequence[JudgeAnswer], wanted: int) -> JudgeAnswer:
    """The majority of what came, or the failure that prevented one. Either way it carries the bill of all of them."""
    usages = tuple(answer.usage for answer in answers)
    usage = Usage(*(sum(counts) for counts in zip(*map(astuple, usages), strict=True)))
    votes = [answer.result for answer in answers if isinstance(answer.result, Assessment)]
    if len(votes) > wanted // 2:
        return replace(answers[0], result=majority(votes), usage=usage, usages=usages)
    failed = [answer for answer in answers if isinstance(answer.result, Failure)]
    # What was sent and failed before what was held back: it says more. The first answer was paid for, so either way the
    # attempt counts (`domain.retry`), and paying again has an end.
    failure = min(failed, key=lambda answer: _held_for_s(answer) is not None)
    # The model of an answer that was paid for: what was held back names one that may never have been asked.
    return replace(failure, usage=usage, usages=usages, model=answers[0].model)
