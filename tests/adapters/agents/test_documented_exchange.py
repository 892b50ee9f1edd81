"""What docs/scenarios.md shows of agents under test is what is sent and read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from qa_worker.adapters.agents.exchange import read_reply, request
from qa_worker.adapters.importers.agent_file import parse_agent_and_target
from qa_worker.application.playing import AgentKind, AgentReply
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role, ToolCall, Turn
from tests.stage import a_context, said_by_agent, said_by_caller

PAGE = Path(__file__).parents[3] / "docs" / "scenarios.md"


def _examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_request_is_the_one_that_is_sent() -> None:
    history = (
        said_by_agent("Booking line, how can I help?"),
        said_by_caller("A table for Friday at six."),
        said_by_agent("", ToolCall("find_table", {"day": "Friday"}, "call_0")),
        Turn(Role.TOOL, '{"free": ["18:00"]}', tool_call_id="call_0", is_error=False),
        said_by_agent(f"Six is free. For four, the deposit is {CUT_NOTE}"),
    )
    told = "[the caller was silent for 4 seconds] No, two of us."

    assert json.loads(_examples("json")[0]) == request(a_context(), history, told)


def test_the_reply_is_read() -> None:
    reply = read_reply(_examples("json")[1].encode(), took_s=0.7)

    call = ToolCall("hold_table", {"guests": 2}, "call_0")
    assert reply == AgentReply(
        (
            said_by_agent("", call),
            Turn(Role.TOOL, '{"held": true}', tool_call_id="call_0", is_error=False),
            said_by_agent("Two, then. Shall I book it?"),
        ),
        latency_s=0.7,
    )


def test_the_function_answers() -> None:
    found: dict[str, Any] = {}
    exec(_examples("python")[0], found)  # noqa: S102 - our own page

    assert found["reply"](request(a_context(), (), "Hello")) == "You said: Hello"


def test_the_target_is_read() -> None:
    _, target = parse_agent_and_target(_examples("yml")[0], source="docs")

    assert target is not None
    assert target.kind is AgentKind.HTTP
    assert target.settings["headers"] == {"authorization": "Bearer ${QA_AGENT_SECRET_BOOKING}"}
