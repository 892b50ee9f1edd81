"""Claude as the judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from qa_worker.adapters.claude import deadline
from qa_worker.adapters.claude.client import ClientPerProcess, Timeouts
from qa_worker.adapters.claude.faults import FAULTS, classify
from qa_worker.adapters.claude.message import read_answer
from qa_worker.adapters.claude.retrying import with_quick_retries
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.prompt import system_text, user_text
from qa_worker.domain.reading import answer_schema
from qa_worker.domain.rubric import JudgeKind, JudgeSpec

DEFAULT_SPEC = JudgeSpec(JudgeKind.CLAUDE, model="claude-haiku-5-5", effort="low", max_tokens=3000)
"""What is used for the parts that a request's own spec leaves empty. The answer and its thinking share `max_tokens`."""


class ClaudeJudge:
    """Grades calls with Claude. One object serves all threads of a process, and forked children too."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        connections: int = 64,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`base_url` None or empty means the public API; give as many `connections` as threads grade at a time.

        Raises: ValueError for a key that can't be one. Nothing is connected, and no client built, before the first call.
        """
        self._clients = ClientPerProcess(api_key=api_key, base_url=base_url, connections=connections)
        self._timeouts = timeouts or Timeouts()
        self._sleep = sleep

    def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """The answer, within `timeouts.total_s`; every fault of the provider is a `Failure` in it."""
        body = _body(request)
        with deadline.limit(self._timeouts.total_s):
            return with_quick_retries(lambda: self._ask(body, request), sleep=self._sleep)

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def _ask(self, body: dict[str, Any], request: JudgeRequest) -> JudgeAnswer:
        messages = self._clients.get().messages.with_raw_response
        try:
            response = messages.create(**body, timeout=self._timeouts.for_request())
        except FAULTS as error:
            failure = classify(error, now_s=time.time())
            return JudgeAnswer(failure, Usage(), body["model"], failure.request_id, "")
        return read_answer(
            response.http_response.content,
            request_id=response.headers.get("request-id"),
            model=body["model"],
            rubric=request.rubric,
        )


def _body(request: JudgeRequest) -> dict[str, Any]:
    """The request to the Messages API. Neither sampling parameters nor thinking: the models refuse the one and need
    no field for the other.
    """
    call, spec = request.call, request.spec
    static = system_text(request.rubric, call.agent)
    per_call = user_text(call.transcript, expected=call.expected, evidence=request.evidence, started_at=call.started_at)
    return {
        "model": spec.model or DEFAULT_SPEC.model,
        "max_tokens": spec.max_tokens or DEFAULT_SPEC.max_tokens,
        # marked here and not automatically: the last block, the transcript, is never read from the cache
        "system": [{"type": "text", "text": static, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": per_call}],
        "output_config": {
            "effort": spec.effort or DEFAULT_SPEC.effort,
            "format": {"type": "json_schema", "schema": answer_schema(request.rubric)},
        },
    }
