"""An agent under test as a file describes it: instructions, tools with mocks, a script. docs/scenarios.md, "Agents"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, field_validator, model_validator

from qa_worker.adapters.importers.fields import Id, Phrase, Text
from qa_worker.adapters.importers.problems import refuse, shown
from qa_worker.adapters.importers.written import (
    Arguments,
    Name,
    Written,
    argument_rules,
    read_written,
    written_problems,
)
from qa_worker.application.playing import SECRET_PREFIX, AgentKind, Target
from qa_worker.domain.agent_under_test import AgentUnderTest, Conversation, Reply, Script
from qa_worker.domain.call import Agent, ToolSpec
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.mocks import Answers, Mock, ToolMocks
from qa_worker.domain.transcript import ToolCall

_LONGEST_WAIT_S = 600
_ANSWERS = tuple(answer.value for answer in Answers)
_ONE_ANSWER = f"Write one of {', '.join(_ANSWERS)}"
_FIXES: Mapping[str, str] = {
    "id": "Write the id under which scenarios name the agent",
    "name": "Write one line",
    "version": 'Write the version as a text, in quotes, such as "7"',
    "greeting": "Write what the agent says first, or leave it out where the caller speaks first",
    "instructions": "Write the agent's instructions as one text",
    "tools": "Write a list of objects with name, description, parameters, mocks",
    "parameters": "Write the tool's JSON schema as an object",
    "mocks": "Write a list of objects with when and one of " + ", ".join(_ANSWERS),
    "when": "Write an object of argument names and what they have to be",
    "fails": "Write the error as a text",
    "times_out": "Write true",
    "malformed": "Write the raw text that the tool answers",
    "after_s": "Write seconds as a number",
    "times": "Write how many calls this answers, a whole number from 1",
    "script": "Write an object with otherwise and conversations",
    "otherwise": "Write one text",
    "conversations": "Write a list of objects with begins and replies",
    "begins": "Write a list of phrases of the caller's first line",
    "replies": "Write a list of texts, or of objects with say, calls, ends",
    "say": "Write one text",
    "calls": "Write a list of objects with tool and arguments",
    "tool": "Write the tool's name",
    "arguments": "Write an object",
    "ends": "Write true or false",
    "target": "Write an object with kind, and what that kind needs",
    "kind": "Write one of " + ", ".join(AgentKind),
    "url": "Write the URL as a text",
    "headers": "Write an object of header names and texts; a secret as ${QA_AGENT_SECRET_NAME}",
    "model": "Write the model's name as a text",
    "effort": "Write low, medium, high, xhigh or max",
    "body": "Write an object of fields that are added to each request",
    "call": "Write module:function as one text",
}
# What each kind of target must have, and may have.
_TARGETS: Mapping[AgentKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    AgentKind.SCRIPTED: ((), ()),
    AgentKind.CLAUDE: ((), ("model", "effort")),
    AgentKind.HTTP: (("url",), ("headers",)),
    AgentKind.OPENAI: (("url", "model"), ("headers", "body")),
    AgentKind.PYTHON: (("call",), ()),
}


_WEB = re.compile(r"https?://[^\s/]+", re.IGNORECASE)
_NAMED = re.compile(r"\$\{([^}]*)\}")
_SECRET = re.compile(rf"{SECRET_PREFIX}[A-Za-z0-9_]+", re.ASCII)


def parse_agent(text: str, *, source: str) -> AgentUnderTest:
    """The agent that a YAML or JSON text describes. Raises InvalidInput with `source`, line, field and fix."""
    return parse_agent_and_target(text, source=source)[0]


def parse_agent_and_target(text: str, *, source: str) -> tuple[AgentUnderTest, Target | None]:
    """The same, with how the agent is reached: None where the file leaves that open. Raises InvalidInput."""
    read = read_written(text, _AgentIn, source=source, fixes=_FIXES)
    return read.under_test(), read.target.target() if read.target else None


def agent_problems(text: str, *, source: str) -> tuple[InvalidInput, ...]:
    """Everything for which `parse_agent` would refuse this text; nothing where it wouldn't."""
    return written_problems(text, _AgentIn, source=source, fixes=_FIXES)


def _wait(value: float) -> float:
    if not 0 <= value <= _LONGEST_WAIT_S:
        raise refuse(f"is {shown(value)}, and must be from 0 to {_LONGEST_WAIT_S}", "Write seconds, such as 4.5")
    return value


def _times(value: int) -> int:
    if value < 1:
        raise refuse(f"is {shown(value)}", _FIXES["times"])
    return value


def _as_reply(value: object) -> object:
    return {"say": value} if isinstance(value, str) else value


class _MockIn(Written):
    when: Arguments | None = None
    returns: Any = None
    fails: Phrase | None = None
    times_out: Literal[True] | None = None
    malformed: Text | None = None
    after_s: Annotated[float, AfterValidator(_wait)] = 0.0
    times: Annotated[int, AfterValidator(_times)] | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        given = [name for name in _ANSWERS if name in self.model_fields_set]
        if len(given) != 1:
            problem = f"has {' and '.join(given)}" if given else "says no answer"
            raise refuse(problem, _ONE_ANSWER)
        return self

    def mock(self) -> Mock:
        answers = Answers(next(name for name in _ANSWERS if name in self.model_fields_set))
        body = None if answers is Answers.TIMES_OUT else getattr(self, answers.value)
        return Mock(answers, body, argument_rules(self.when or {}), self.after_s, self.times)


class _ToolIn(Written):
    name: Id
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    mocks: list[_MockIn] | None = None

    def spec(self) -> ToolSpec:
        return ToolSpec(self.name, self.description or "", self.parameters or {})


class _CallIn(Written):
    mistaken: ClassVar[Mapping[str, str]] = {"args": "arguments", "name": "tool"}

    tool: Id
    arguments: dict[str, Any] | None = None

    def call(self) -> ToolCall:
        return ToolCall(self.tool, self.arguments or {})


class _ReplyIn(Written):
    say: Text | None = None
    calls: list[_CallIn] | None = None
    ends: bool = False

    def reply(self) -> Reply:
        return Reply((self.say or "").strip(), tuple(given.call() for given in self.calls or ()), self.ends)


class _ConversationIn(Written):
    begins: list[Phrase]
    replies: list[Annotated[_ReplyIn, BeforeValidator(_as_reply)]]

    def conversation(self) -> Conversation:
        return Conversation(tuple(self.begins), tuple(given.reply() for given in self.replies))


class _ScriptIn(Written):
    otherwise: Phrase | None = None
    conversations: list[_ConversationIn]

    def script(self) -> Script:
        spoken = tuple(given.conversation() for given in self.conversations)
        return Script(spoken, Reply(self.otherwise.strip())) if self.otherwise else Script(spoken)


class _TargetIn(Written):
    kind: Literal["scripted", "claude", "http", "openai", "python"]
    url: Phrase | None = None
    headers: dict[str, Text] | None = None
    model: Name | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    body: dict[str, Any] | None = None
    call: Phrase | None = None

    @field_validator("url")
    @classmethod
    def _for_the_web(cls, url: str | None) -> str | None:
        if url is not None and not _WEB.match(url.strip()):
            raise refuse(f"is {shown(url)}, which no agent can be reached by", "Write https://, a host and a path")
        if url is not None and "${" in url:
            raise refuse("holds a ${...}, which is filled in in headers only", _FIXES["headers"])
        return url

    @field_validator("headers")
    @classmethod
    def _known_secrets(cls, headers: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (headers or {}).items():
            unknown = next((one for one in _NAMED.findall(value) if not _SECRET.fullmatch(one)), None)
            if unknown is not None:
                fix = f"Let its name begin with {SECRET_PREFIX}: no other variable is ever sent"
                raise refuse(f"names ${{{unknown}}}, which is not filled in", fix, at=(name,))
        return headers

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        required, optional = _TARGETS[AgentKind(self.kind)]
        missing = next((name for name in required if getattr(self, name) is None), None)
        if missing is not None:
            raise refuse(f"has no {missing}, which the kind {self.kind} needs", _FIXES[missing])
        extra = next((name for name in self._given() if name not in (*required, *optional)), None)
        if extra is not None:
            raise refuse(f"means nothing to the kind {self.kind}", "Remove it", at=(extra,))
        return self

    def _given(self) -> dict[str, Any]:
        # not the model's own dump, which would drop what is null within `body`
        given = ((name, getattr(self, name)) for name in type(self).model_fields if name != "kind")
        return {name: value for name, value in given if value is not None}

    def target(self) -> Target:
        return Target(AgentKind(self.kind), self._given())


class _AgentIn(Written):
    mistaken: ClassVar[Mapping[str, str]] = {"systemprompt": "instructions", "firstmessage": "greeting"}

    id: Id
    name: Name | None = None
    version: Text | None = None
    greeting: Text | None = None
    instructions: Text | None = None
    tools: list[_ToolIn] | None = None
    script: _ScriptIn | None = None
    target: _TargetIn | None = None

    @model_validator(mode="after")
    def _a_script_to_play(self) -> Self:
        if self.target is not None and self.target.target().kind is AgentKind.SCRIPTED and self.script is None:
            raise refuse("is missing, and the target is scripted", _FIXES["script"], at=("script",))
        return self

    @model_validator(mode="after")
    def _tools_exist(self) -> Self:
        names = [tool.name for tool in self.tools or ()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise refuse(f"has {shown(twice)} twice", "Give each tool a name of its own", at=("tools",))
        for number, conversation in enumerate(self.script.conversations if self.script else ()):
            for place, reply in enumerate(conversation.replies):
                unknown = next((call.tool for call in reply.calls or () if call.tool not in names), None)
                if unknown is not None:
                    at = ("script", "conversations", number, "replies", place, "calls")
                    raise refuse(f"names {shown(unknown)}, which is no tool", f"Write one of {', '.join(names)}", at=at)
        return self

    def under_test(self) -> AgentUnderTest:
        return AgentUnderTest(
            agent=Agent(
                id=self.id,
                name=self.name or "",
                version=self.version or "",
                instructions=(self.instructions or "").strip(),
                tools=tuple(tool.spec() for tool in self.tools or ()),
            ),
            greeting=(self.greeting or "").strip(),
            mocks=ToolMocks(
                {tool.name: tuple(given.mock() for given in tool.mocks) for tool in self.tools or () if tool.mocks}
            ),
            script=self.script.script() if self.script else None,
        )
