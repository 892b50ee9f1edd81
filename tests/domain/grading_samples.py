"""A small rubric, a call and an answer, for everything about prompts and answers."""

from __future__ import annotations

import json
from typing import Any

from qa_worker.domain.call import Agent, Call, ToolSpec
from qa_worker.domain.rubric import Criterion, Rubric
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

RUBRIC = Rubric(
    name="Table bookings",
    guidance="Callers are guests.",
    criteria=(
        Criterion("accuracy", "Accuracy", "Is what the agent says true?", {1: "false", 3: "vague", 5: "true"}),
        Criterion("policy", "Policy", "Does the agent keep to its policy?", {1: "ignored", 5: "kept"}),
    ),
)

AGENT = Agent(
    id="agent-7",
    name="Ada",
    instructions="Book tables.\nNever take more than eight guests.",
    tools=(
        ToolSpec("book_table", "Books a table.", {"type": "object", "properties": {"guests": {"type": "integer"}}}),
    ),
)

TRANSCRIPT = Transcript(
    (
        Turn(Role.AGENT, "Harbour Grill, good evening.", 0.0, 1.8),
        Turn(Role.CALLER, "A table for two at eight, please.", 2.4, 4.9),
        Turn(Role.AGENT, "", 5.0, 5.0, (ToolCall("book_table", {"guests": 2, "at": "20:00"}, "tc_1"),)),
        Turn(Role.TOOL, '{"ok": true}', tool_call_id="tc_1", is_error=False),
        Turn(Role.AGENT, "Your table for two is booked for nine.", 5.6, 8.1),
    )
)

CALL = Call(ref="call-1", agent=AGENT, transcript=TRANSCRIPT)


def saying(*texts: str) -> Transcript:
    """A transcript in which caller and agent say these in turn."""
    return Transcript(tuple(Turn((Role.CALLER, Role.AGENT)[n % 2], text) for n, text in enumerate(texts)))


def answer(**changes: Any) -> dict[str, Any]:
    """A good answer of the model, with changes at the top."""
    finding = {
        "criterion": "accuracy",
        "severity": "major",
        "turn": 4,
        "quote": "booked for nine",
        "explanation": "Turn 1 asked for eight.",
    }
    levels = {
        "accuracy": {"explanation": "Wrong time in turn 4.", "applicable": True, "level": 2},
        "policy": {"explanation": "Two guests.", "applicable": True, "level": 5},
    }
    return {"summary": "The caller wanted a table.", "findings": [finding], "criteria": levels} | changes


def answer_text(**changes: Any) -> str:
    """The same, as the text that a model writes."""
    return json.dumps(answer(**changes))
