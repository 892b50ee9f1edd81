"""An agent behind a chat endpoint in OpenAI's format: instructions and tools are those of its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qa_worker.adapters.agents.exchange import MAX_TEXT_CHARS, no_constant
from qa_worker.adapters.agents.settings import mapping, text
from qa_worker.adapters.agents.tools import converse
from qa_worker.adapters.agents.web import AgentWeb, unreadable
from qa_worker.application.conversing import ChatAnswer
from qa_worker.application.playing import AgentReply, PlayContext
from qa_worker.domain.call import ToolSpec
from qa_worker.domain.chat import PLATFORM_NOTE, Message, Said, Side
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.transcript import ToolCall, Turn

_CODE = "agent_reply"
_STOPS: Mapping[str, str] = {
    "length": "was cut at its token limit. Raise the scenario's limits.max_reply_tokens",
    "content_filter": "was withheld by a content filter",
}


class OpenAiAgent:
    """Implements the port `AgentPlayer`. Tools answer from mocks; what it costs is not known here."""

    def __init__(self, settings: Mapping[str, Any], web: AgentWeb) -> None:
        """`settings` has `url` (with the version, without the path), `model`, perhaps `headers` and `body`.

        `body` is added to each request, and takes fields out of it where its value is null. Raises InvalidInput.
        """
        base = text(settings, "url", example="https://models.example/v1").rstrip("/")
        self._web = web
        self._endpoint = web.endpoint(f"{base}/chat/completions", mapping(settings, "headers"))
        self._model = text(settings, "model", example="gpt-5-mini")
        self._extra = mapping(settings, "body")

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        """See the port."""

        def say(messages: tuple[Message, ...], within_s: float) -> ChatAnswer:
            body = json.dumps(self._body(context, messages)).encode()
            replied = self._web.post(self._endpoint, body, within_s=within_s, headers={})
            if isinstance(replied, Failure):
                return ChatAnswer(replied, Usage(), None)
            result, usage = _read(replied.content)
            return ChatAnswer(result, usage, None, replied.took_s)

        return converse(context, history, told, say=say)

    def _body(self, context: PlayContext, messages: Sequence[Message]) -> dict[str, Any]:
        agent = context.agent.agent
        system = "\n\n".join(filter(None, (agent.instructions.strip(), PLATFORM_NOTE)))
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": context.limits.max_reply_tokens,
            "messages": [{"role": "system", "content": system}, *(row for one in messages for row in _rows(one))],
            **({"tools": [_tool(tool) for tool in agent.tools]} if agent.tools else {}),
            **self._extra,
        }
        return {name: value for name, value in body.items() if value is not None}


def _rows(message: Message) -> Iterator[dict[str, Any]]:
    for result in message.results:
        yield {"role": "tool", "tool_call_id": result.call_id, "content": result.text}
    if message.side is Side.USER:
        if message.text:
            yield {"role": "user", "content": message.text}
        return
    row: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    if message.calls:
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _written(call)}}
            for call in message.calls
        ]
    yield row


def _written(call: ToolCall) -> str:
    return json.dumps(dict(call.arguments)) if call.malformed is None else call.malformed


def _tool(tool: ToolSpec) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}, **tool.parameters}
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": schema}}


def _read(content: bytes) -> tuple[Said | Failure, Usage]:
    try:
        given = json.loads(content)
        choice = given["choices"][0]
        message = choice["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return unreadable(_CODE, "is no chat completion"), Usage()
    usage = _usage(given.get("usage"))
    if not isinstance(message, Mapping):
        return unreadable(_CODE, "is no chat completion"), usage
    stopped = _STOPS.get(str(choice.get("finish_reason")))
    if stopped is not None:
        return Failure(
            FailureKind.UNREADABLE, f"agent_{choice['finish_reason']}", f"The agent's reply {stopped}."
        ), usage
    return _said(message), usage


def _said(message: Mapping[str, Any]) -> Said | Failure:
    words = message.get("content") or ""
    calls = message.get("tool_calls") or []
    if not isinstance(words, str) or len(words) > MAX_TEXT_CHARS:
        return unreadable(_CODE, "has a content that is no text, or far too long a one")
    if not isinstance(calls, list):
        return unreadable(_CODE, "has tool_calls that are no list")
    read = [_call(call) for call in calls]
    if None in read:
        return unreadable(_CODE, "has a tool call without a name")
    return Said(words.strip(), tuple(call for call in read if call is not None))


def _call(given: object) -> ToolCall | None:
    function = given.get("function") if isinstance(given, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        return None
    call_id = given.get("id")
    named = call_id if isinstance(call_id, str) else None
    raw = function.get("arguments")
    try:
        arguments = json.loads(raw, parse_constant=no_constant) if isinstance(raw, str) and raw.strip() else {}
    except (ValueError, RecursionError):
        arguments = None
    # arguments that are no object are the agent's own fault, and evidence about it
    if isinstance(arguments, dict):
        return ToolCall(name, arguments, named)
    return ToolCall(name, {}, named, malformed=str(raw)[:MAX_TEXT_CHARS])


def _usage(given: object) -> Usage:
    def count(name: str) -> int:
        value = given.get(name) if isinstance(given, Mapping) else None
        return value if type(value) is int and value >= 0 else 0

    return Usage(input_tokens=count("prompt_tokens"), output_tokens=count("completion_tokens"))
