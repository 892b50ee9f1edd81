"""The ports through which a run's two sides are played. Synchronous, called from one thread for each run.

No transaction is open meanwhile. Players keep nothing between two calls: whatever they need stands in the context and the
history, because the next turn of a run may be played by another process.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure
from qa_worker.domain.scenario import Limits, Scenario
from qa_worker.domain.transcript import Turn

SECRET_PREFIX = "QA_AGENT_SECRET_"  # noqa: S105 - the beginning of names, no secret
"""Of the environment variables that an agent's file may name: no other is ever sent to an agent."""


class AgentKind(StrEnum):
    """What plays the agent under test."""

    SCRIPTED = "scripted"
    """The script of its file. Needs no key."""
    CLAUDE = "claude"
    """A model with the instructions of its file; its tools answer from mocks."""
    HTTP = "http"
    OPENAI = "openai"
    """A chat endpoint that speaks OpenAI's format."""
    PYTHON = "python"


SIMULATED = frozenset({AgentKind.SCRIPTED, AgentKind.CLAUDE})
"""Their clock is virtual: nobody sleeps. All others are live, and a silence towards them is real."""


@dataclass(frozen=True, slots=True)
class Target:
    """How the agent under test is reached. `settings` belong to the kind's player: a URL, a model, headers.

    A secret stands in them only as the name of an environment variable of the worker.
    """

    kind: AgentKind = AgentKind.SCRIPTED
    settings: Mapping[str, Any] = field(default_factory=dict)


def never() -> bool:
    """For runs that nobody can cancel."""
    return False


@dataclass(frozen=True, slots=True)
class PlayContext:
    """Which run is played, of what, for whom. The same for every turn of a run.

    `stop` tells whether a cancel was asked for. It costs a query: to be asked before each further request of one reply.
    """

    run_id: uuid.UUID
    workspace: WorkspaceId
    scenario: Scenario
    agent: AgentUnderTest
    limits: Limits
    target: Target = field(default_factory=Target)
    workspace_name: str = ""
    stop: Callable[[], bool] = field(default=never, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AgentReply:
    """What the agent does when it has the floor.

    turns: agent and tool turns without times, in order: tool calls with their results, then words. None at all is silence.
    latency_s: from the end of the caller's words to the agent's first one, tools included; virtual or measured. Of a
    reply without words: to its end.
    ends: the agent hangs up after it. transferred: it has handed the caller over to somebody else.
    cost_micro_usd: None where the price isn't known.
    faults: what of it is a fault of the test, by the turn that shows it.
    ready_s: when each of the turns was there, in seconds from the end of the caller's words; empty where all came at once.
    cut_short: the run was cancelled meanwhile, and these turns are only the beginning of it.
    """

    turns: tuple[Turn, ...]
    latency_s: float
    ends: bool = False
    transferred: bool = False
    usage: Usage = field(default_factory=Usage)
    cost_micro_usd: int | None = 0
    ready_s: tuple[float, ...] = ()
    faults: Mapping[int, str] = field(default_factory=dict)
    cut_short: bool = False


@dataclass(frozen=True, slots=True)
class CallerReply:
    """The caller's next line, with its markers as `qa_worker.domain.markers` reads them.

    done: nothing comes after it. The line is still played and answered; an empty one ends the call at once.
    """

    line: str
    done: bool = False
    usage: Usage = field(default_factory=Usage)
    cost_micro_usd: int | None = 0


class AgentPlayer(Protocol):
    """Plays the agent under test."""

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        """The answer to `told`, the caller's present move as a voice platform would tell it.

        `history` is all that came before, the greeting first: the caller's turns as they were told, the agent's as far
        as they were heard. Faults of the provider are a `Failure`, never an exception.
        """
        ...


class CallerPlayer(Protocol):
    """Plays the caller. `name` is that of its model, or `script`: results of different callers are hardly comparable."""

    @property
    def name(self) -> str: ...

    def line(self, context: PlayContext, history: Sequence[Turn], number: int) -> CallerReply | Failure:
        """The caller's next line. `number` counts from 0 the lines that this run's caller has given before.

        `history` is what the caller heard, and said: words only, no tools. It ends with the agent's last turn in full,
        which the line may interrupt. Faults of the provider are a `Failure`, never an exception.
        """
        ...


class Players(Protocol):
    """The players that this process has."""

    def agent(self, context: PlayContext) -> AgentPlayer:
        """Who plays the agent, by `context.target.kind`. Raises QaError with a clear text where there is none."""
        ...

    def caller(self, context: PlayContext) -> CallerPlayer:
        """Who plays the caller, by `context.scenario.play`. Raises QaError with a clear text where there is none."""
        ...
