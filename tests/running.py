"""A stage for tests of runs: real rows, players from a list of lines, everything else still."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, Table, func, select, update

from qa_worker.adapters.offline.judge import RulesJudge
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.suite_queries import PostgresSuiteQueries
from qa_worker.adapters.postgres.tables import dead_letters, evaluations, run_turns, runs, suite_runs
from qa_worker.application._grading import Tools
from qa_worker.application._run_record import RunTools, SuiteTools
from qa_worker.application.judging import Judge
from qa_worker.application.playing import (
    AgentKind,
    AgentPlayer,
    AgentReply,
    CallerPlayer,
    CallerReply,
    PlayContext,
    Target,
)
from qa_worker.application.ports import Leases
from qa_worker.application.run_scenario import run_scenario
from qa_worker.application.run_suite import start_suite
from qa_worker.application.running import ProgressEvent, SuiteLine, SuiteProgress, WantedSuite
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.call import Agent
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure
from qa_worker.domain.outcome import Outcome
from qa_worker.domain.playback import PlayedTurn
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.scenario import ExpectedOutcome, Limits, Play, Scenario, Told
from qa_worker.domain.suite import SuiteResult
from qa_worker.domain.transcript import Role, Turn
from tests.builders import a_grading
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases

MINE = "default"
TOLD = ExpectedOutcome(told=(Told("the time", ("at ten",)),))
LINES = ("I need a table for two on Friday.", "At eight in the evening.", "Thank you, goodbye.")


def a_scenario(name: str = "plain", *lines: str, limits: Limits | None = None, play: Play = Play.SCRIPT) -> Scenario:
    """A scenario of the agent `booking` with fixed lines."""
    return Scenario(
        id=name,
        title=f"The {name} one",
        agent="booking",
        play=play,
        persona="Somebody",
        goal="a table",
        opening=(lines or LINES)[0],
        steps=(lines or LINES)[1:],
        limits=limits or Limits(),
    )


def an_agent(version: str = "1", *, greeting: str = "Booking line, hello.") -> AgentUnderTest:
    """An agent without tools or script: the tests' players say what it says."""
    return AgentUnderTest(Agent("booking", "Booking", version, "Be polite."), greeting)


@dataclass
class FakePlayers:
    """Both players: the caller says the scenario's lines, the agent answers with `answer`. Counts what it was asked.

    It checks what the real ones rely on: no connection is held while they think.
    """

    answer: Callable[[PlayContext, Sequence[Turn], str], AgentReply | Failure]
    lines: Callable[[PlayContext, Sequence[Turn], int], CallerReply | Failure] | None = None
    missing: str = ""
    name: str = "fake"
    asked: list[tuple[uuid.UUID, str]] = field(default_factory=list)
    heard: list[Sequence[Turn]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def agent(self, context: PlayContext) -> AgentPlayer:
        if self.missing:
            raise InvalidInput("target.kind", self.missing, "Give the worker a key")
        assert context.agent.agent.id == "booking"
        return self

    def caller(self, context: PlayContext) -> CallerPlayer:
        assert context.scenario.agent == "booking"
        return self

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        with self.lock:
            self.asked.append((context.run_id, told))
            self.heard.append(history)
        return self.answer(context, history, told)

    def line(self, context: PlayContext, history: Sequence[Turn], number: int) -> CallerReply | Failure:
        if self.lines is not None:
            return self.lines(context, history, number)
        lines = context.scenario.lines
        if number >= len(lines):
            return CallerReply("", done=True)
        return CallerReply(lines[number], done=number == len(lines) - 1)


def says(text: str, *, ends: bool = False, transferred: bool = False) -> AgentReply:
    """A reply in words, that cost something."""
    usage = Usage(input_tokens=10, output_tokens=2)
    return AgentReply((Turn(Role.AGENT, text),), 0.5, ends, transferred, usage, 3)


def politely(_context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
    """An agent that answers whatever was said, each time in other words."""
    return says(f"Certainly, about {told.split(maxsplit=1)[0]} then, that is point {len(history)}, at ten.")


@dataclass
class Heard:
    """Keeps the events. Implements the port `Progress`."""

    events: list[ProgressEvent] = field(default_factory=list)

    def publish(self, event: ProgressEvent) -> None:
        self.events.append(event)


class InMine:
    """What can be asked of the read side, for the workspace of the stage."""

    def __init__(self, queries: PostgresSuiteQueries) -> None:
        self._queries = queries

    def progress(self, suite_run_id: uuid.UUID) -> SuiteProgress | None:
        return self._queries.progress(suite_run_id, workspace_name=MINE)

    def result(self, suite_run_id: uuid.UUID) -> SuiteResult | None:
        return self._queries.result(suite_run_id, workspace_name=MINE)

    def turns(self, run_id: uuid.UUID) -> Sequence[PlayedTurn]:
        return self._queries.turns(run_id, workspace_name=MINE)

    def recent(self, workspace_name: str, *, limit: int) -> Sequence[SuiteLine]:
        return self._queries.recent(workspace_name, limit=limit)


class Stage:
    """One worker on a real database."""

    def __init__(self, uow: UnitsOfWork, players: FakePlayers | None = None, *, leases: Leases | None = None) -> None:
        self.uow = uow
        self.clock = FrozenClock()
        self.players = players or FakePlayers(politely)
        self.progress = Heard()
        self.slept: list[float] = []
        self.read_side = PostgresSuiteQueries(uow.engine)
        self.queries = InMine(self.read_side)
        judges: dict[JudgeKind, Judge] = {JudgeKind.RULES: RulesJudge()}
        direct = DirectRecords(uow)
        grading = Tools(
            uow=uow,
            records=direct,
            leases=NoLeases(),
            context=NoContext(),
            judges=judges,
            clock=self.clock,
            jitter=FixedJitter(),
            policy=RetryPolicy((10.0, 20.0), max_attempts=3, unreadable_attempts=2),
            grading=a_grading(judge=JudgeKind.RULES),
            lease_s=60.0,
        )
        self.tools = RunTools(
            suites=SuiteTools(uow, self.clock, 1000),
            grading=grading,
            players=self.players,
            leases=leases or NoLeases(),
            settling=direct,
            progress=self.progress,
            sleep=self.slept.append,
            policy=RetryPolicy((10.0, 20.0), max_attempts=3, unreadable_attempts=2, parks_blocked=False),
            deadline_s=3600.0,
            caller_retries=2,
        )

    def judged_by(self, judge: Judge) -> None:
        """Grade with this judge, as Claude."""
        grading = replace(self.tools.grading, judges={JudgeKind.CLAUDE: judge}, grading=a_grading())
        self.tools = replace(self.tools, grading=grading)

    def start(
        self,
        *scenarios: Scenario,
        agent: AgentUnderTest | None = None,
        max_parallel: int = 100,
        repeats: int | None = None,
        kind: AgentKind = AgentKind.SCRIPTED,
        settings: Mapping[str, Any] | None = None,
    ) -> uuid.UUID:
        """A suite run of these scenarios."""
        wanted = WantedSuite(
            "nightly",
            scenarios or (a_scenario(),),
            agent or an_agent(),
            Target(kind, settings or {}),
            max_parallel,
            repeats,
        )
        own = self.tools.grading.grading.rubric.rubric.name
        return start_suite(wanted, workspace_name=MINE, max_attempts=3, tools=self.tools.suites, own_rubric=own)

    def play(self, run_id: uuid.UUID) -> Outcome:
        """Play one run."""
        return run_scenario(run_id=run_id, tools=self.tools)

    def play_all(self, suite_run_id: uuid.UUID) -> None:
        """Play whatever is queued, until nothing is."""
        while queued := [row.id for row in self.runs(suite_run_id) if row.state == "queued"]:
            for run_id in queued:
                self.play(run_id)

    def runs(self, suite_run_id: uuid.UUID) -> list[Row[tuple[object, ...]]]:
        """The rows of its runs, in order."""
        with self.uow.engine.connect() as connection:
            return list(
                connection.execute(
                    select(runs)
                    .where(runs.c.suite_run_id == suite_run_id)
                    .order_by(runs.c.position, runs.c.repeat, runs.c.attempt_no)
                )
            )

    def run(self, run_id: uuid.UUID) -> Row[tuple[object, ...]]:
        """One run's row."""
        with self.uow.engine.connect() as connection:
            return connection.execute(select(runs).where(runs.c.id == run_id)).one()

    def suite(self, suite_run_id: uuid.UUID) -> Row[tuple[object, ...]]:
        """The suite's row."""
        with self.uow.engine.connect() as connection:
            return connection.execute(select(suite_runs).where(suite_runs.c.id == suite_run_id)).one()

    def turns(self, run_id: uuid.UUID) -> list[str]:
        """What was said, in order."""
        return [f"{row.turn.role.value}: {row.turn.text}" for row in self.queries.turns(run_id)]

    def indexes(self, run_id: uuid.UUID) -> list[int]:
        """The indexes of its turns."""
        with self.uow.engine.connect() as connection:
            query = select(run_turns.c.index).where(run_turns.c.run_id == run_id).order_by(run_turns.c.index)
            return list(connection.execute(query).scalars())

    def evaluations(self) -> list[Row[tuple[object, ...]]]:
        """All evaluations."""
        with self.uow.engine.connect() as connection:
            return list(connection.execute(select(evaluations)))

    def letters(self) -> list[str]:
        """The reasons of all dead letters of runs."""
        with self.uow.engine.connect() as connection:
            return list(connection.execute(select(dead_letters.c.reason).where(dead_letters.c.kind == "run")).scalars())

    def change(self, table: Table, **values: object) -> None:
        """Write to every row of a table."""
        with self.uow.engine.begin() as connection:
            connection.execute(update(table).values(values))

    def make_due(self) -> None:
        """What waits may be tried now."""
        with self.uow.engine.begin() as connection:
            for table in (runs, evaluations):
                connection.execute(update(table).where(table.c.state == "pending").values(not_before=func.now()))

    def expire(self, run_id: uuid.UUID) -> None:
        """As if its worker had died a while ago."""
        with self.uow.engine.begin() as connection:
            for table, which in (
                (runs, runs.c.id == run_id),
                (evaluations, evaluations.c.state == "running"),
            ):
                past = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
                connection.execute(update(table).where(which).values(lease_until=past))
