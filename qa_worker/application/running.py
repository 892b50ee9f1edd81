"""What runs of scenarios need of the world: suites, runs as work, progress. The players have a module of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from qa_worker.application.playing import PlayContext, Target
from qa_worker.application.purse import Left
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.call import CallId, WorkspaceId
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure
from qa_worker.domain.playback import PlayedTurn, Written
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.run import Completion, Ended, RunState
from qa_worker.domain.scenario import Scenario
from qa_worker.domain.suite import RunResult, SuiteResult
from qa_worker.domain.work import Lease, WorkStatus

MOST_RUNS = 5_000
"""Of one suite run: made in one transaction."""


class SuiteState(StrEnum):
    """Where a suite run stands."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class WantedSuite:
    """What is to be run: each scenario `repeats` times, or as often as it says itself where that is None.

    `label` is what people call this version of the agent. `judge` None is the one of the settings.
    """

    name: str
    scenarios: tuple[Scenario, ...]
    agent: AgentUnderTest
    target: Target
    max_parallel: int
    repeats: int | None = None
    label: str = ""
    judge: JudgeKind | None = None
    created_by: str = ""

    @property
    def size(self) -> int:
        """How many runs it begins with."""
        return sum(self.repeats or scenario.repeats for scenario in self.scenarios)


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run and where it belongs."""

    id: uuid.UUID
    suite_run_id: uuid.UUID
    workspace: WorkspaceId


@dataclass(frozen=True, slots=True)
class RunSubject:
    """What a run is about, as alerts tell it. `agent_id` is None where no call of the agent was ever stored."""

    scenario: str
    agent_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours until its lease runs out, with all that happened so far.

    `completion` is None while the conversation goes on; after that only the grading is left. `played_s` are the real
    seconds that workers have spent on it, `age_s` those since it was taken for the first time, waits included; `until` is
    when it has to be over, by the clock of the worker that has it. `lease.attempt` counts from its last turn on, and
    `unreadable` how many of these attempts got an answer nobody could use. `attempt_no` counts from 1 the runs of this
    repeat.
    """

    lease: Lease
    ref: RunRef
    workspace_name: str
    context: PlayContext
    rows: tuple[PlayedTurn, ...]
    begun_at: datetime
    completion: Completion | None = None
    judge: JudgeKind | None = None
    attempt_no: int = 1
    played_s: float = 0.0
    cancel_asked: bool = False
    age_s: float = 0.0
    until: datetime | None = None
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Played:
    """What a run has come to: written with every exchange, as totals, so that writing it twice changes nothing.

    `caller` is the name of the caller's player.
    """

    turns: int
    clock_s: float
    played_s: float
    usage: Usage
    cost_micro_usd: int | None
    caller: str = ""


@dataclass(frozen=True, slots=True)
class SuiteEnd:
    """A suite run whose last run has just ended. `agent_id` is None where no call of the agent was ever stored.

    The last attempt of each repeat counts: `failed` of `counted` that were measured, and `unmeasured`, which say nothing
    of the agent and were not cancelled.
    """

    id: uuid.UUID
    workspace: WorkspaceId
    state: SuiteState
    failed: int
    counted: int
    unmeasured: int = 0
    agent_id: uuid.UUID | None = None


class Runs(Protocol):
    """Runs as work: claimed, played on, settled. All times of leases are the database's own."""

    def claim(self, run_id: uuid.UUID, *, lease_s: float) -> ClaimedRun | None:
        """Take it, if it is free and due. Commit before playing."""
        ...

    def status(self, run_id: uuid.UUID) -> WorkStatus | None:
        """Where the work stands."""
        ...

    def subject(self, run_id: uuid.UUID) -> RunSubject:
        """What it is about."""
        ...

    def cancel_asked(self, run_id: uuid.UUID) -> bool:
        """Whether somebody wants it cancelled."""
        ...

    def hold(self, lease: Lease) -> bool:
        """The same for the rest of this transaction, in which no such request can come. Raises LeaseLost."""
        ...

    def append(self, lease: Lease, written: Written, played: Played) -> bool:
        """Store turns; True where a cancel was asked for. Raises LeaseLost. Doing it again changes nothing.

        Attempts are counted anew from here.
        """
        ...

    def close(self, lease: Lease, completion: Completion, *, call_id: CallId, evaluation_id: uuid.UUID) -> None:
        """The conversation is over, and this is what it is graded by. Raises LeaseLost."""
        ...

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, failure: Failure) -> None:
        """Back to pending for so many seconds; the attempt is undone unless it `counts`. Raises LeaseLost."""
        ...

    def settle(self, lease: Lease, ended: Ended, *, failure: Failure | None = None) -> None:
        """The run is over. With a `failure` it was given up on: there is a dead letter, too. Raises LeaseLost."""
        ...

    def again(self, run_id: uuid.UUID) -> None:
        """The same repeat once more, as the next attempt; not where it was to be cancelled."""
        ...

    def revive(self, run_id: uuid.UUID) -> RunRef | None:
        """A run that was given up on goes on where it stood, with a fresh budget of attempts, for its grading, too.

        Its letter is settled by the caller, who reopens its suite run. None where it isn't dead, or was cancelled.
        """
        ...

    def free_expired(self, *, limit: int) -> tuple[int, Sequence[RunRef]]:
        """End the attempts of dead workers: back to pending, or `error` where attempts are used up. (freed, ended)."""
        ...

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[uuid.UUID]:
        """Runs queued longer ago than that and never claimed, except for as many as have messages `waiting`."""
        ...

    def cancel(self, run_id: uuid.UUID, *, workspace_name: str) -> RunRef | None:
        """A waiting run is cancelled at once, a running one is told; None where the workspace has no such run.

        The same for later attempts of the same repeat.
        """
        ...


class Suites(Protocol):
    """Suite runs: made, dispatched, ended."""

    def add(self, wanted: WantedSuite, *, workspace_name: str, max_attempts: int) -> uuid.UUID:
        """Store the versions of all scenarios and of the agent, the suite run and all its runs."""
        ...

    def queue_due(self, *, limit: int, batch: int, left: Left | None) -> Sequence[uuid.UUID]:
        """Note that messages are about to be sent for these due runs: suites with the fewest in flight go first.

        `limit` is how many runs may be queued or running of all suites together. What waits for a budget is among them
        where something is `left` of it; where that isn't known (None), it never is.
        """
        ...

    def complete(self, suite_run_id: uuid.UUID) -> SuiteEnd | None:
        """End the suite run where all its runs are over; None where they aren't, or it had ended before."""
        ...

    def reopen(self, suite_run_id: uuid.UUID) -> bool:
        """Something of it goes on: it runs again until `complete` ends it anew. False where it was cancelled."""
        ...

    def ask_cancel(self, suite_run_id: uuid.UUID, *, workspace_name: str) -> bool:
        """Note that no run of it may begin any more; False where the workspace has no such suite. Commit before `cancel_asked`."""
        ...

    def cancel_asked(self, *, limit: int) -> Sequence[uuid.UUID]:
        """Apply what was asked for: waiting runs are cancelled, running ones told. The suites that were touched."""
        ...


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Something happened in a run. Ids and numbers only: what was said stands in the rows."""

    run_id: uuid.UUID
    suite_run_id: uuid.UUID
    state: RunState
    turns: int = 0
    clock_s: float = 0.0


class Progress(Protocol):
    """Tells whoever watches. Never fails, never waits for long: rows remain the truth."""

    def publish(self, event: ProgressEvent) -> None:
        """Send it, if that is possible now."""
        ...


class Watching(Protocol):
    """The events of one suite run since it was opened."""

    def wait(self, timeout_s: float) -> Sequence[ProgressEvent]:
        """What came within that time: at once when there is something, nothing where nothing came."""
        ...


class Feed(Protocol):
    """Where events are watched."""

    def open(self, suite_run_id: uuid.UUID) -> AbstractContextManager[Watching]:
        """Begin to watch: everything that is published from now on is seen."""
        ...


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where one run stands. One that waits for its next attempt says why (`wait_reason`, `message`), and until when."""

    id: uuid.UUID
    scenario: str
    repeat: int
    attempt_no: int
    state: RunState
    turns: int
    max_turns: int
    wait_reason: str = ""
    message: str = ""
    waits_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SuiteProgress:
    """Where a suite run stands, run by run."""

    id: uuid.UUID
    name: str
    state: SuiteState
    cancel_asked: bool
    runs: tuple[RunProgress, ...]


@dataclass(frozen=True, slots=True)
class SuiteLine:
    """A suite run in a list of them."""

    id: uuid.UUID
    name: str
    agent: str
    label: str
    state: SuiteState
    created_at: datetime
    runs: Mapping[RunState, int]


@dataclass(frozen=True, slots=True)
class RunView:
    """One run with all that happened in it so far, whatever became of it."""

    run: RunResult
    suite_run_id: uuid.UUID
    suite: str
    agent: str
    agent_version: str
    turns: tuple[PlayedTurn, ...]


class SuiteQueries(Protocol):
    """The read side: what belongs to another workspace is not there. Raises StoreUnavailable."""

    def progress(self, suite_run_id: uuid.UUID, *, workspace_name: str) -> SuiteProgress | None:
        """Where it stands now; None where the workspace has no such suite run."""
        ...

    def result(self, suite_run_id: uuid.UUID, *, workspace_name: str) -> SuiteResult | None:
        """All its runs, with scores and findings."""
        ...

    def run(self, run_id: uuid.UUID, *, workspace_name: str) -> RunView | None:
        """One run and its conversation."""
        ...

    def runs_beginning(self, beginning: str, *, workspace_name: str, limit: int) -> Sequence[uuid.UUID]:
        """The runs whose ids begin so, the latest first."""
        ...

    def recent(self, workspace_name: str, *, limit: int) -> Sequence[SuiteLine]:
        """The latest suite runs of a workspace, the newest first."""
        ...

    def turns(self, run_id: uuid.UUID, *, workspace_name: str) -> Sequence[PlayedTurn]:
        """What happened in a run so far; nothing where the workspace has no such run."""
        ...


def totals(rows: Iterable[PlayedTurn]) -> tuple[Usage, int | None]:
    """What these turns have used and cost; the cost is None where that of any is."""
    usage, cost = Usage(), 0
    unknown = False
    for row in rows:
        used = row.usage
        usage = Usage(
            usage.input_tokens + used.input_tokens,
            usage.cache_read_tokens + used.cache_read_tokens,
            usage.cache_write_5m_tokens + used.cache_write_5m_tokens,
            usage.cache_write_1h_tokens + used.cache_write_1h_tokens,
            usage.output_tokens + used.output_tokens,
            usage.thinking_tokens + used.thinking_tokens,
        )
        unknown = unknown or row.cost_micro_usd is None
        cost += row.cost_micro_usd or 0
    return usage, None if unknown else cost
