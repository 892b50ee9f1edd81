"""Short ways to write conversations down in tests."""

from __future__ import annotations

import json
from typing import Any

from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn


def caller(text: str, start_s: float | None = None, end_s: float | None = None) -> Turn:
    return Turn(Role.CALLER, text, start_s, end_s)


def agent(text: str, start_s: float | None = None, end_s: float | None = None) -> Turn:
    return Turn(Role.AGENT, text, start_s, end_s)


def calls(name: str, *, text: str = "", **arguments: Any) -> Turn:
    return Turn(Role.AGENT, text, tool_calls=(ToolCall(name, arguments),))


def returns(result: Any, *, is_error: bool | None = None) -> Turn:
    return Turn(Role.TOOL, result if isinstance(result, str) else json.dumps(result), is_error=is_error)


def talk(*turns: Turn) -> Transcript:
    return Transcript(turns)
