"""Chat messages as OpenAI writes them: an object with `messages`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ValidationError, model_validator

from qa_worker.adapters.importers import fields
from qa_worker.adapters.importers.fields import Door, HeaderIn, Id, Seconds, Text, Tools, at_most
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.problems import from_validation, kind_of, refuse, shown
from qa_worker.adapters.importers.tool_arguments import tool_call
from qa_worker.domain.call import Agent, Call, Expected, fingerprint
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

_ROLES: Mapping[str, Role] = {"user": Role.CALLER, "assistant": Role.AGENT, "tool": Role.TOOL}
_SPOKEN_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_PLACEHOLDERS: Mapping[str, str] = {
    "image_url": "[image]",
    "input_image": "[image]",
    "image_file": "[image]",
    "input_audio": "[audio]",
    "file": "[file]",
    "input_file": "[file]",
}
_FIXES: Mapping[str, str] = {
    **fields.FIXES,
    "messages": 'Write a list of messages, each such as {"role": "user", "content": "Hello"}',
    "role": 'Write "system", "developer", "user", "assistant" or "tool"',
    "content": "Write null, a text, or a list of content parts",
    "start_time": "Write seconds from the start of the call as a number, or leave it out",
    "end_time": "Write seconds from the start of the call as a number, or leave it out",
}


def _flat(content: object) -> object:
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    if content is None or isinstance(content, str):
        return content
    raise refuse(f"is {kind_of(content)}, and must be null, a text or a list of parts", _FIXES["content"])


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        fix = 'Write parts such as {"type": "text", "text": "Hello"}'
        raise refuse(f"has a part that is {kind_of(part)} without a type", fix)
    if kind not in _SPOKEN_PARTS:
        return _PLACEHOLDERS.get(kind, f"[{kind}]" if kind.isidentifier() else "[other content]")
    text = part.get(_SPOKEN_PARTS[kind])
    if not isinstance(text, str):
        raise refuse(f"has a part of type {kind!r} whose text is {kind_of(text)}", "Write its text as a text")
    return text


class _FunctionIn(Door):
    name: Id
    arguments: Any = None


class _ToolCallIn(Door):
    function: _FunctionIn
    id: Id | None = None

    def tool_call(self) -> ToolCall:
        return tool_call(self.function.name, self.function.arguments, call_id=self.id)


class _AudioIn(Door):
    transcript: Text | None = None


class _MessageIn(Door):
    mistaken: ClassVar[Mapping[str, str]] = {
        "text": "content",
        "functioncall": "tool_calls",
        "starts": "start_time",
        "ends": "end_time",
    }

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Text | None, BeforeValidator(_flat)] = None
    refusal: Text | None = None
    audio: _AudioIn | None = None
    tool_calls: list[_ToolCallIn] | None = None
    tool_call_id: Id | None = None
    start_time: Seconds | None = None
    end_time: Seconds | None = None

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.start_time is not None and self.end_time is not None and self.end_time < self.start_time:
            problem = f"is {shown(self.end_time)}, before start_time ({shown(self.start_time)})"
            raise refuse(problem, "A message ends after it starts; are the two swapped?", at=("end_time",))
        if self.tool_calls and self.role != "assistant":
            raise refuse(
                f"stands on a message of {self.role}", "Only assistant messages call tools", at=("tool_calls",)
            )
        return self

    def said(self) -> str:
        """The text of the message. A spoken answer has no content but the transcript of its audio."""
        return self.content or self.refusal or (self.audio.transcript if self.audio else None) or ""

    def turn(self) -> Turn:
        return Turn(
            role=_ROLES[self.role],
            text=self.said(),
            start_s=self.start_time,
            end_s=self.end_time,
            tool_calls=tuple(call.tool_call() for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
        )


class _ChatIn(HeaderIn):
    id: Id | None = None
    tools: Tools | None = None
    messages: Annotated[list[_MessageIn], BeforeValidator(at_most("max_turns", "messages"))]

    def agent_of(self, default: Agent) -> Agent:
        agent = self.agent.agent() if self.agent else default
        system = [message.said() for message in self.messages if message.role not in _ROLES]
        told = [text for text in (agent.instructions, *system) if text.strip()]
        tools = agent.tools or tuple(tool.spec() for tool in self.tools or ())
        # The same system text in many messages, or also under `agent`, is said once.
        return dataclasses.replace(agent, instructions="\n\n".join(dict.fromkeys(told)), tools=tools)


def read_chat(record: Mapping[str, Any], *, limits: Limits, default_agent: Agent) -> Call:
    """A call from one object with `messages`. Without an id, one is derived from the content. Raises InvalidInput."""
    try:
        given = _ChatIn.model_validate(record, context=limits)
    except ValidationError as error:
        raise from_validation(error, fixes=_FIXES) from None
    call = Call(
        ref=given.id or "",
        agent=given.agent_of(default_agent),
        transcript=Transcript(tuple(message.turn() for message in given.messages if message.role in _ROLES)),
        external_id=given.external_id,
        started_at=given.started_at,
        expected=given.expected.expected() if given.expected else Expected(),
        metadata=given.metadata or {},
    )
    return call if call.ref else dataclasses.replace(call, ref=f"chat-{fingerprint(call)[:12]}")
