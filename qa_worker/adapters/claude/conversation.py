"""Claude in a conversation: one message of the caller or of the agent under test."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import anthropic

from qa_worker.adapters.claude.client import ClientPerLoop, Timeouts
from qa_worker.adapters.claude.estimate import PastOutputs
from qa_worker.adapters.claude.faults import FAULTS, bad_response, classify
from qa_worker.adapters.claude.limits import read_limits
from qa_worker.adapters.claude.message import read_body, read_text, read_usage, refusal_category
from qa_worker.adapters.claude.request import CHARS_PER_TOKEN
from qa_worker.application.conversing import ChatAnswer, ChatRequest
from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import Need
from qa_worker.domain.call import ToolSpec
from qa_worker.domain.chat import Message, Said
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind, deadline
from qa_worker.domain.pricing import cost_micro_usd
from qa_worker.domain.transcript import ToolCall

_CACHED = {"type": "ephemeral"}
_STOPS: Mapping[str, tuple[FailureKind, str]] = {
    "max_tokens": (
        FailureKind.UNREADABLE,
        "The reply was cut at its token limit. Raise the scenario's limits.max_reply_tokens or lower the effort.",
    ),
    "model_context_window_exceeded": (
        FailureKind.REJECTED,
        "The conversation does not fit the model's context window.",
    ),
}


class AsyncClaudeChat:
    """Implements the port `MeteredChatModel`; every event loop has its own connections."""

    def __init__(
        self,
        api_key: str,
        *,
        now: Callable[[], datetime],
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        connections: int = 1000,
    ) -> None:
        """`base_url` None or empty means the public API; `now` (aware UTC) chooses the price.

        Raises: ValueError for a key that can't be one. Nothing is connected, and no client built, before the first call.
        """
        self._clients = ClientPerLoop(
            api_key=api_key, base_url=base_url, timeouts=timeouts or Timeouts(), connections=connections
        )
        self._now = now
        self._past_output = PastOutputs()

    async def say(self, request: ChatRequest) -> ChatAnswer:
        """See the port: one request."""
        content = json.dumps(body(request)).encode()
        try:
            async with asyncio.timeout(request.within_s):
                answer = await self._ask(content, request)
        except TimeoutError:
            return _failed(deadline())
        self._past_output.note(request.turned.model, answer.usage.output_tokens)
        return answer

    def need(self, request: ChatRequest) -> Need:
        """See the port. Counted as if nothing was cached: what it was too much is given back with the answer."""
        chars = len(request.system) + sum(map(_chars, request.messages)) + sum(map(_tool_chars, request.tools))
        expected = self._past_output.expected(request.turned.model)
        return Need(math.ceil(chars / CHARS_PER_TOKEN), min(expected, request.turned.max_tokens))

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._clients.aclose()

    async def _ask(self, content: bytes, request: ChatRequest) -> ChatAnswer:
        began = time.monotonic()
        try:
            response = await self._clients.get().post("/v1/messages", content)
        except FAULTS as error:
            told = read_limits(error.response.headers) if isinstance(error, anthropic.APIStatusError) else None
            return _failed(classify(error, now_s=time.time()), told)
        took_s = time.monotonic() - began
        limits, request_id = read_limits(response.headers), response.headers.get("request-id")
        message = read_body(response.content)
        if message is None:
            return _failed(bad_response(request_id), limits)
        usage = read_usage(message["usage"])
        cost = cost_micro_usd(usage, model=request.turned.model, at=self._now().date())
        return ChatAnswer(_said(message, request_id), usage, cost, took_s, limits)


def body(request: ChatRequest) -> dict[str, Any]:
    """The request to the Messages API.

    Two marks: what all runs share (tools, instructions), and the conversation so far, which the next turn reads again.
    No thinking block is ever sent back: players keep nothing, and the API asks for none.
    """
    messages = [_message(message) for message in request.messages]
    messages[-1]["content"][-1]["cache_control"] = _CACHED
    given: dict[str, Any] = {
        "model": request.turned.model,
        "max_tokens": request.turned.max_tokens,
        "system": [{"type": "text", "text": request.system, "cache_control": _CACHED}],
        "messages": messages,
        "output_config": {"effort": request.turned.effort},
    }
    return {**given, "tools": [_tool(tool) for tool in request.tools]} if request.tools else given


def _message(message: Message) -> dict[str, Any]:
    content: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": result.call_id, "content": result.text, "is_error": result.is_error}
        for result in message.results
    ]
    if message.text:
        content.append({"type": "text", "text": message.text})
    content.extend(
        {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)} for call in message.calls
    )
    return {"role": message.side.value, "content": content}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}, **tool.parameters}
    return {"name": tool.name, "description": tool.description, "input_schema": schema}


def _said(message: Mapping[str, Any], request_id: str | None) -> Said | Failure:
    reason = message["stop_reason"]
    calls = tuple(_calls(message["content"]))
    if reason == "end_turn" or (reason == "tool_use" and calls):
        return Said(read_text(message["content"]).strip(), calls)
    if reason == "refusal":
        code = f"refusal:{refusal_category(message.get('stop_details'))}"
        return Failure(FailureKind.UNREADABLE, code, "Claude refused to speak.", request_id=request_id)
    kind, words = _STOPS.get(reason, (FailureKind.UNREADABLE, "The reply ended early."))
    code = reason if reason in _STOPS else "stop:other"
    return Failure(kind, code, words, request_id=request_id)


def _calls(blocks: list[Any]) -> list[ToolCall]:
    called = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_use"]
    return [_call(block) for block in called if isinstance(block.get("name"), str)]


def _call(block: Mapping[str, Any]) -> ToolCall:
    given, call_id = block.get("input"), block.get("id")
    named = call_id if isinstance(call_id, str) else None
    if isinstance(given, dict):
        return ToolCall(block["name"], given, named)
    return ToolCall(block["name"], {}, named, malformed=json.dumps(given))


def _chars(message: Message) -> int:
    calls = sum(len(call.name) + len(str(call.arguments)) for call in message.calls)
    return len(message.text) + calls + sum(len(result.text) for result in message.results)


def _tool_chars(tool: ToolSpec) -> int:
    return len(tool.name) + len(tool.description) + len(str(tool.parameters))


def _failed(failure: Failure, limits: RateLimits | None = None) -> ChatAnswer:
    return ChatAnswer(failure, Usage(), 0, limits=limits)
