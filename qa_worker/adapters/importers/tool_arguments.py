"""Arguments of a tool call as a model produced them, well formed or not."""

from __future__ import annotations

import json
from typing import Any

from qa_worker.adapters.importers.json_values import check_json
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.transcript import ToolCall, canonical


def tool_call(name: str, arguments: object, *, call_id: str | None) -> ToolCall:
    """A tool call; arguments that are no JSON object are kept as `malformed`, because they are the agent's fault.

    A missing or blank value is a call without arguments, which is how several platforms write one.
    """
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return ToolCall(name=name, arguments={}, id=call_id)
    if isinstance(arguments, dict):
        return ToolCall(name=name, arguments=arguments, id=call_id)
    if not isinstance(arguments, str):
        return ToolCall(name=name, arguments={}, id=call_id, malformed=canonical(arguments))
    decoded = _object_in(arguments)
    if decoded is None:
        return ToolCall(name=name, arguments={}, id=call_id, malformed=arguments)
    return ToolCall(name=name, arguments=decoded, id=call_id)


def _object_in(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` holds, or None where it holds anything else or what can't be stored."""
    try:
        value = json.loads(text)
        check_json(value)
    except (ValueError, RecursionError, InvalidInput):
        return None
    return value if isinstance(value, dict) else None
