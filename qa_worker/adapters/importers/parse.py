"""One record, in any of the formats, as a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qa_worker.adapters.importers.chat import read_chat
from qa_worker.adapters.importers.json_values import check_json
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.native import read_record
from qa_worker.adapters.importers.problems import WHOLE_RECORD, kind_of
from qa_worker.domain.call import Agent, Call
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.transcript import canonical, to_json

_DEFAULT_AGENT = Agent(id="default")


def parse_call(record: object, *, limits: Limits, source: str | None = None, line: int | None = None) -> Call:
    """A call from one decoded JSON value: an object with `turns` or `messages`, or a list of messages.

    Raises InvalidInput, which names `source`, `line`, the field's path and the fix, and nothing else.
    """
    try:
        check_json(record)
        return _within_limits(*_read(record, limits), limits)
    except InvalidInput as error:
        error.source, error.line = source, line
        raise


def is_message(value: object) -> bool:
    """True for what is one chat message rather than a whole call."""
    return (
        isinstance(value, dict)
        and bool({"role", "content"} & value.keys())
        and not {"turns", "messages"} & value.keys()
    )


def _read(record: object, limits: Limits) -> tuple[Call, str]:
    if isinstance(record, list):
        record = {"messages": record}
    if not isinstance(record, dict):
        fix = "Write one JSON object per call, with `turns` or `messages`"
        raise InvalidInput(field=WHOLE_RECORD, problem=f"is {kind_of(record)}, and must be an object", fix=fix)
    if is_message(record):
        fix = 'Put all messages of a call into one list: {"messages": [...]}'
        raise InvalidInput(field=WHOLE_RECORD, problem="is a single message, not a call", fix=fix)
    if "turns" in record and "messages" in record:
        raise InvalidInput(field="messages", problem="stands beside turns", fix="Keep one of the two")
    if "messages" in record:
        return _non_empty(read_chat(record, limits=limits, default_agent=_DEFAULT_AGENT), "messages")
    return _non_empty(read_record(record, limits=limits, default_agent=_DEFAULT_AGENT), "turns")


def _non_empty(call: Call, field: str) -> tuple[Call, str]:
    if not call.transcript.turns:
        raise InvalidInput(field=field, problem="holds no turn", fix="Leave out calls in which nobody spoke")
    return call, field


def _within_limits(call: Call, field: str, limits: Limits) -> Call:
    _check_size(to_json(call.transcript), limits.max_transcript_bytes, field)
    _check_size(_context(call), limits.max_context_bytes, "agent, expected and metadata")
    return call


def _check_size(value: object, limit: int, field: str) -> None:
    size = len(canonical(value).encode())
    if size > limit:
        problem = f"takes {size:,} bytes as JSON; at most {limit:,} are accepted"
        raise InvalidInput(field=field, problem=problem, fix="Shorten long tool results, or raise the limit")


def _context(call: Call) -> list[Mapping[str, Any] | str | list[Any]]:
    agent, expected = call.agent, call.expected
    tools = [[tool.name, tool.description, tool.parameters] for tool in agent.tools]
    phrases = [
        *expected.required_phrases,
        *expected.forbidden_phrases,
        *expected.required_tools,
        *expected.forbidden_tools,
    ]
    return [agent.name, agent.version, agent.instructions, tools, expected.outcome, phrases, call.metadata]
