"""An agent under test, as its file describes it: who it is, what its tools answer, and what it says if it is scripted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from qa_worker.domain.call import Agent
from qa_worker.domain.call_control import controls
from qa_worker.domain.folding import contains, words
from qa_worker.domain.mocks import MockAnswer, ToolMocks
from qa_worker.domain.scenario import Scenario
from qa_worker.domain.transcript import ToolCall

# A caller who hesitates says the same.
_SILENT = re.compile(r"\[the caller was silent for [\d.]+ seconds\]")


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent does when it has the floor: tool calls first, then words. `ends` hangs up after them."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """A scripted conversation: it is chosen by words of the caller's first turn, and goes on reply by reply."""

    begins: tuple[str, ...]
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """All that a scripted agent can say; `otherwise` where it is at its wits' end."""

    conversations: tuple[Conversation, ...] = ()
    otherwise: Reply = field(default_factory=lambda: Reply("I'm sorry, I didn't understand that."))

    def reply(self, caller_turns: Sequence[str]) -> Reply:
        """The answer to the last of these turns of the caller. The same turns get the same answer, in any process."""
        first = caller_turns[0] if caller_turns else ""
        forms = (words(first), words(_SILENT.sub(" ", first)))
        for conversation in self.conversations:
            if any(contains(form, words(phrase)) for phrase in conversation.begins for form in forms):
                place = len(caller_turns) - 1
                return conversation.replies[place] if place < len(conversation.replies) else self.otherwise
        return self.otherwise


@dataclass(frozen=True, slots=True)
class AgentUnderTest:
    """`greeting` is what it says before the caller does; without one the caller speaks first.

    `script` is None for an agent that only a model can play.
    """

    agent: Agent
    greeting: str = ""
    mocks: ToolMocks = field(default_factory=ToolMocks)
    script: Script | None = None

    @property
    def unmocked(self) -> tuple[str, ...]:
        """The tools that answer nothing: a call of one is an error, and a fault of the test."""
        names = (tool.name for tool in self.agent.tools)
        return tuple(name for name in names if not self.mocks.rules.get(name) and not controls(name))

    def answer(self, call: ToolCall, *, earlier: Sequence[ToolCall]) -> MockAnswer:
        """What a tool answers, as `ToolMocks.answer` has it. Calling one that the agent doesn't have is its own fault."""
        if call.name not in {tool.name for tool in self.agent.tools}:
            return MockAnswer('{"error": "there is no such tool"}', is_error=True)
        return self.mocks.answer(call, earlier=earlier)


def unknown_tools(scenario: Scenario, agent: Agent) -> tuple[str, ...]:
    """Tools that the scenario names and the agent doesn't have: a slip of the pen, or the wrong agent."""
    expected = scenario.expected
    named = (
        *expected.call.required_tools,
        *expected.call.forbidden_tools,
        *(rule.tool for rule in (*expected.required, *expected.forbidden)),
        *scenario.ends.tools,
    )
    known = {tool.name for tool in agent.tools}
    return tuple(name for name in dict.fromkeys(named) if name not in known)
