"""What is sent to an agent that is not played here, and what it may answer. docs/scenarios.md documents both.

The same objects go over HTTP and to a Python callable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qa_worker.adapters.agents.tools import close, spoken, storable
from qa_worker.adapters.agents.web import unreadable
from qa_worker.application.playing import AgentReply, PlayContext
from qa_worker.domain.failure import Failure
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role, ToolCall, Turn

MAX_TEXT_CHARS = 20_000
_MAX_CALLS = 50
_CODE = "agent_reply"


class _Wrong(Exception):
    """What is wrong with a reply, in words that quote nothing of it."""


def request(context: PlayContext, history: Sequence[Turn], told: str) -> dict[str, Any]:
    """The question to the agent: what the caller does now, and all that came before."""
    agent = context.agent.agent
    return {
        "conversation_id": str(context.run_id),
        "turn": turn_number(history),
        "agent": {"id": agent.id, "version": agent.version},
        "message": told,
        "history": [_turn(turn) for turn in history],
    }


def turn_number(history: Sequence[Turn]) -> int:
    """Which turn of the caller is answered, from 1: the same turn may come again after a fault."""
    return 1 + sum(turn.role is Role.CALLER for turn in history)


def read_reply(content: bytes, *, took_s: float) -> AgentReply | Failure:
    """The reply in a body of JSON."""
    try:
        given = json.loads(content, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return unreadable(_CODE, "is no JSON")
    return reply_of(given, took_s=took_s)


def no_constant(name: str) -> None:
    """For `json.loads`: NaN and the infinities are no JSON, and no database takes them. Raises ValueError."""
    raise ValueError(name)


def reply_of(given: object, *, took_s: float) -> AgentReply | Failure:
    """The reply in an object with text, tool_calls, ends and transferred, or in a plain text."""
    try:
        return _reply({"text": given} if isinstance(given, str) else given, took_s)
    except _Wrong as wrong:
        return unreadable(_CODE, str(wrong))


def _reply(given: object, took_s: float) -> AgentReply:
    if not isinstance(given, Mapping):
        raise _Wrong("is no object")
    calls = _of(given, "tool_calls", list, [])
    if len(calls) > _MAX_CALLS:
        raise _Wrong(f"has more than {_MAX_CALLS} tool_calls")
    turns = [turn for place, call in enumerate(calls) for turn in _tool_turns(call, place)]
    text = spoken(_of(given, "text", str, ""))
    if len(text) > MAX_TEXT_CHARS:
        raise _Wrong(f"has a text of more than {MAX_TEXT_CHARS:,} characters")
    if text:
        turns.append(Turn(Role.AGENT, text))
    ends, transferred = close(turns)
    return AgentReply(
        tuple(turns),
        took_s,
        ends=_of(given, "ends", bool, ends),
        transferred=_of(given, "transferred", bool, transferred),
    )


def _tool_turns(call: object, place: int) -> tuple[Turn, ...]:
    at = f"tool_calls[{place}]"
    if not isinstance(call, Mapping):
        raise _Wrong(f"has a {at} that is no object")
    name = call.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _Wrong(f"has no text in {at}.name")
    arguments = _plain(_of(call, "arguments", Mapping, {}, at), f"{at}.arguments")
    call_id = f"call_{place}"
    called = Turn(Role.AGENT, "", tool_calls=(ToolCall(spoken(name), arguments, call_id),))
    if call.get("result") is None:
        return (called,)
    result = _plain(call["result"], f"{at}.result")
    result = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    is_error = _of(call, "is_error", bool, None, at)
    return called, Turn(Role.TOOL, result[:MAX_TEXT_CHARS], tool_call_id=call_id, is_error=is_error)


def _of(given: Mapping[str, Any], name: str, kind: type, otherwise: Any, at: str = "") -> Any:
    value = given.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, kind):
        words = {str: "a text", list: "a list", bool: "true or false", Mapping: "an object"}[kind]
        raise _Wrong(f"must have {words} in {f'{at}.' if at else ''}{name}")
    return value


def _plain(value: Any, at: str) -> Any:
    """A copy of a JSON value, fit for the database: a Python agent may hand over any object."""
    try:
        return storable(json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError, RecursionError):
        raise _Wrong(f"has no JSON in {at}") from None


def _turn(turn: Turn) -> dict[str, Any]:
    row: dict[str, Any] = {"role": turn.role.value, "text": turn.text.removesuffix(CUT_NOTE).strip()}
    if turn.role is Role.AGENT and turn.text.endswith(CUT_NOTE):
        row["interrupted"] = True
    if turn.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": dict(call.arguments)} for call in turn.tool_calls
        ]
    if turn.role is Role.TOOL:
        row["tool_call_id"] = turn.tool_call_id
        row["is_error"] = turn.is_error is True
    return row
