"""Claude as the judge."""

from __future__ import annotations

import asyncio
import json
import time

import anthropic

from qa_worker.adapters.claude.client import ClientPerLoop, Timeouts
from qa_worker.adapters.claude.faults import FAULTS, classify
from qa_worker.adapters.claude.limits import read_limits
from qa_worker.adapters.claude.message import read_answer
from qa_worker.adapters.claude.request import body, model
from qa_worker.application.judging import JudgeAnswer, JudgeRequest, RateLimits
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, deadline


class AsyncClaudeJudge:
    """Grades calls with Claude. Implements the port `AsyncJudge`; every event loop has its own connections."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        connections: int = 1000,
    ) -> None:
        """`base_url` None or empty means the public API; give as many `connections` as calls are graded at a time.

        Raises: ValueError for a key that can't be one. Nothing is connected, and no client built, before the first call.
        """
        self._timeouts = timeouts or Timeouts()
        self._clients = ClientPerLoop(
            api_key=api_key, base_url=base_url, timeouts=self._timeouts, connections=connections
        )

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """The answer of one request, within `timeouts.total_s`; every fault of the provider is a `Failure` in it."""
        content = json.dumps(body(request)).encode()
        try:
            async with asyncio.timeout(self._timeouts.total_s):
                return await self._ask(content, request)
        except TimeoutError:
            return _failed(deadline(), request)

    async def aclose(self) -> None:
        """Close the connections of the running loop. Call it in each loop that graded, before the loop ends."""
        await self._clients.aclose()

    async def _ask(self, content: bytes, request: JudgeRequest) -> JudgeAnswer:
        try:
            response = await self._clients.get().post("/v1/messages", content)
        except FAULTS as error:
            return _failed(classify(error, now_s=time.time()), request, limits=_limits(error))
        return read_answer(
            response.content,
            request_id=response.headers.get("request-id"),
            model=model(request),
            rubric=request.rubric,
            limits=read_limits(response.headers),
        )


def _failed(failure: Failure, request: JudgeRequest, *, limits: RateLimits | None = None) -> JudgeAnswer:
    return JudgeAnswer(failure, Usage(), model(request), failure.request_id, "", limits)


def _limits(error: Exception) -> RateLimits | None:
    return read_limits(error.response.headers) if isinstance(error, anthropic.APIStatusError) else None
