"""A scenario: who calls, what for, what they know and say, and what has to come of it. docs/scenarios.md describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from qa_worker.domain.call import Expected
from qa_worker.domain.matching import ArgumentRule
from qa_worker.domain.transcript import canonical


class Play(StrEnum):
    """Who makes up the caller's words: the fixed lines of the scenario, or a model that plays from the brief."""

    SCRIPT = "script"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A tool call that has to happen, or must not. Without `arguments` any call of the tool counts."""

    tool: str
    arguments: tuple[ArgumentRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """Something that the agent has to tell the caller, in any one of these forms, written or spelled aloud."""

    name: str
    forms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpectedOutcome:
    """What has to come of the call.

    `call` holds what every call may be expected to have; the names of all `required` tools are in it, and those of the
    `forbidden` ones that are forbidden whatever their arguments. `told` are facts that the agent has to say.
    """

    call: Expected = field(default_factory=Expected)
    required: tuple[ToolRule, ...] = ()
    forbidden: tuple[ToolRule, ...] = ()
    told: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class Ends:
    """When the caller has what they called for: all `tools` succeeded, and after that the agent said one of `said`.

    `when` says it in words, for a caller that is played by a model. Empty parts ask for nothing.
    """

    tools: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    when: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds one run.

    max_turns: how often the caller may have the floor, each time with the agent's answer.
    max_reply_tokens: of one reply of a model, be it caller or agent.
    reply_s: real seconds for one reply; 30 is the read timeout of every model call.
    call_s: seconds of the conversation on its own clock; 1200 is tau2's limit for voice (`src/tau2/config.py`).
    run_s: real seconds for the whole run, waiting for permits included.
    """

    max_turns: int = 20
    max_reply_tokens: int = 1024
    reply_s: float = 30.0
    call_s: float = 1200.0
    run_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One caller's brief and steps.

    `agent` is the id of the agent that it was written for. `facts` is what the caller knows and may say, by name.
    `opening` is the caller's first line, after the agent's greeting; `steps` are the lines after it. A scenario that is
    played `FREE` may have steps too: they are what a scripted caller says where no model is at hand. All lines may hold
    markers. `rubric` names another rubric than the agent's. `repeats` is how often a suite runs it.
    """

    id: str
    title: str
    agent: str
    play: Play
    persona: str = ""
    goal: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    opening: str = ""
    steps: tuple[str, ...] = ()
    ends: Ends = field(default_factory=Ends)
    expected: ExpectedOutcome = field(default_factory=ExpectedOutcome)
    rubric: str | None = None
    limits: Limits = field(default_factory=Limits)
    repeats: int = 1
    tags: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The fixed lines in order, the opening first. Where these are all that is to be said, they are the script."""
        return (self.opening, *self.steps) if self.opening else self.steps


def known_to_caller(scenario: Scenario) -> tuple[str, ...]:
    """Every text from which the caller can know something: the brief, the facts and the fixed lines."""
    return (scenario.persona, scenario.goal, scenario.ends.when, *scenario.facts.values(), *scenario.lines)


def fingerprint(scenario: Scenario) -> str:
    """64 hex digits that change when what is played or expected changes; runs are compared only where they agree."""
    content = asdict(scenario)
    for name in ("title", "tags", "repeats"):
        del content[name]
    return hashlib.sha256(canonical(content).encode()).hexdigest()
