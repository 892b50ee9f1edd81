"""Our own record format: an object with `turns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ValidationError, model_validator

from qa_worker.adapters.importers import fields
from qa_worker.adapters.importers.fields import Door, HeaderIn, Id, Seconds, Text, at_most
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.problems import from_validation, refuse, shown
from qa_worker.adapters.importers.tool_arguments import tool_call
from qa_worker.domain.call import Agent, Call, Expected
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

_FIXES: Mapping[str, str] = {
    **fields.FIXES,
    "turns": 'Write a list of turns, each such as {"role": "caller", "text": "Hello"}, or give OpenAI-style `messages`',
    "role": 'Write "caller", "agent" or "tool"',
    "text": "Write what was said, or the tool's result, as one text (a result that is JSON: as JSON text)",
    "start_s": "Write seconds from the start of the call as a number, or leave it out",
    "end_s": "Write seconds from the start of the call as a number, or leave it out",
    "is_error": "Write true or false, or leave it out",
}
_START_OR_END = "start_s` (seconds from the start of the call) or `end_s"


class _ToolCallIn(Door):
    mistaken: ClassVar[Mapping[str, str]] = {"args": "arguments", "input": "arguments", "params": "arguments"}

    name: Id
    id: Id | None = None
    arguments: Any = None

    def tool_call(self) -> ToolCall:
        return tool_call(self.name, self.arguments, call_id=self.id)


class _TurnIn(Door):
    mistaken: ClassVar[Mapping[str, str]] = {
        "content": "text",
        "message": "text",
        "speaker": "role",
        "starttime": _START_OR_END,
        "endtime": _START_OR_END,
        "timestamp": _START_OR_END,
    }

    role: Literal["caller", "agent", "tool"]
    text: Text | None = None
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    tool_calls: list[_ToolCallIn] | None = None
    tool_call_id: Id | None = None
    is_error: bool | None = None

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.end_s < self.start_s:
            problem = f"is {shown(self.end_s)}, before start_s ({shown(self.start_s)})"
            raise refuse(problem, "A turn ends after it starts; are the two swapped?", at=("end_s",))
        if self.tool_calls and self.role != "agent":
            raise refuse(f"stands on a turn of {self.role}", "Only agent turns call tools", at=("tool_calls",))
        if self.text is None and self.role != "tool" and not self.tool_calls:
            fix = 'Write what was said; "" where nothing was heard. Only an agent turn that calls tools needs no text'
            raise refuse("is missing", fix, at=("text",))
        return self

    def turn(self) -> Turn:
        return Turn(
            role=Role(self.role),
            text=self.text or "",
            start_s=self.start_s,
            end_s=self.end_s,
            tool_calls=tuple(call.tool_call() for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
            is_error=self.is_error,
        )


class _CallIn(HeaderIn):
    mistaken: ClassVar[Mapping[str, str]] = {
        "transcript": "turns",
        "conversation": "turns",
        "message": "messages",
        "callid": "id",
        "tools": "agent.tools",
        "instructions": "agent.instructions",
    }

    id: Id
    turns: Annotated[list[_TurnIn], BeforeValidator(at_most("max_turns", "turns"))]


def read_record(record: Mapping[str, Any], *, limits: Limits, default_agent: Agent) -> Call:
    """A call from one record. Raises InvalidInput."""
    try:
        given = _CallIn.model_validate(record, context=limits)
    except ValidationError as error:
        raise from_validation(error, fixes=_FIXES) from None
    return Call(
        ref=given.id,
        agent=given.agent.agent() if given.agent else default_agent,
        transcript=Transcript(tuple(turn.turn() for turn in given.turns)),
        external_id=given.external_id,
        started_at=given.started_at,
        expected=given.expected.expected() if given.expected else Expected(),
        metadata=given.metadata or {},
    )
