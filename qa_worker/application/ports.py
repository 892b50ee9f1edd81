"""What the use cases need of the world. Adapters implement these; tests implement them as fakes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from qa_worker.application.alerting import AlertRules, Alerts, Incidents
from qa_worker.application.dead_letters import DeadLetters
from qa_worker.application.delivering import Deliveries, Endpoints
from qa_worker.application.purse import UNCAPPED, Left
from qa_worker.application.running import Runs, Suites
from qa_worker.domain.call import Call, CallId, WorkspaceId
from qa_worker.domain.errors import CallConflict
from qa_worker.domain.evaluation import Evaluation, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec, Rubric
from qa_worker.domain.work import Lane, Lease, WorkState, WorkStatus
from qa_worker.messages import Message


class Clock(Protocol):
    """The time of day, aware UTC."""

    def now(self) -> datetime:
        """The current time."""
        ...


class Jitter(Protocol):
    """Where the spread of retries comes from."""

    def fraction(self) -> float:
        """A number in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeOverrides:
    """What a rubric file says about its judge; None leaves the setting of the system."""

    model: str | None = None
    effort: str | None = None
    max_tokens: int | None = None
    votes: int | None = None
    borderline: int | None = None


@dataclass(frozen=True, slots=True)
class NamedRubric:
    """A rubric with what its file says about the judge."""

    rubric: Rubric
    overrides: JudgeOverrides = JudgeOverrides()


@dataclass(frozen=True, slots=True)
class RubricVersion:
    """A stored rubric version: what is measured and what measures it. `id` is one for each fingerprint and workspace."""

    id: uuid.UUID
    rubric: Rubric
    judge: JudgeSpec


@dataclass(frozen=True, slots=True)
class CallKey:
    """A stored call and whose it is."""

    id: CallId
    workspace: WorkspaceId
    agent_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class Asked:
    """A stored call that a message is about, and its evaluation where it has one.

    `room`: how much more live work its workspace may begin by itself; none at zero.
    """

    key: CallKey
    evaluation_id: uuid.UUID | None
    state: WorkState | None
    room: int


@dataclass(frozen=True, slots=True)
class Added:
    """A call that was handed over, and whether this was the first time."""

    key: CallKey
    created: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """Work that is ours until its lease runs out, with all that it needs."""

    lease: Lease
    key: CallKey
    workspace_name: str
    call: Call
    version: RubricVersion


@dataclass(frozen=True, slots=True)
class Malformed:
    """Work that is ours, and a row of `calls` that can't be understood: a backend may write rows itself."""

    lease: Lease
    problem: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What is written about one attempt, whatever came of it.

    `result` is `done`, `retry`, `parked` or `dead`. `cost_micro_usd` is None where the price isn't known.
    """

    result: str
    ended_at: datetime
    usage: Usage
    model: str
    cost_micro_usd: int | None
    request_id: str | None = None
    failure: Failure | None = None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class WorkRef:
    """A piece of work in the words of its message. `alone`: its worker died, and it may be what killed it."""

    evaluation_id: uuid.UUID
    call_id: CallId
    workspace: WorkspaceId
    lane: Lane
    alone: bool = False


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is queued or running `of` each workspace, and what of each model was `sent` just now and not begun yet."""

    of: Mapping[WorkspaceId, int]
    sent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Room:
    """How many evaluations may be sent now: of each lane, and of those `models` that are held back at all.

    Of a workspace that has nothing `left` to spend, none that a model is asked for.
    """

    live: int
    backlog: int
    models: Mapping[str, int] = field(default_factory=dict)
    left: Left = UNCAPPED


@dataclass(frozen=True, slots=True)
class Rescued:
    """What one sweep found: leases that ran out, messages that were lost, calls that nobody had looked at."""

    freed: int = 0
    buried: int = 0
    resent: int = 0
    admitted: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Tokens whose lease is ours, and those whose end was recorded before (by a commit whose answer was lost), with it."""

    mine: frozenset[uuid.UUID] = frozenset()
    written: Mapping[uuid.UUID, str] = field(default_factory=dict)


class Calls(Protocol):
    """Calls, agents and workspaces."""

    def add_all(self, batch: Sequence[Call], *, workspace_name: str) -> Sequence[Added | CallConflict]:
        """Store calls, their agents and their workspace; answers in their order.

        A call whose `ref` is stored with another content is left out, and the conflict stands at its place.
        """
        ...

    def keys(self, call_ids: Sequence[CallId]) -> Sequence[CallKey]:
        """Whose calls these are; those that nobody stored are left out."""
        ...

    def unadmitted(self, *, older_than_s: float, limit: int) -> Sequence[CallKey]:
        """Calls whose evaluation nobody has asked for yet, oldest first."""
        ...


class Rubrics(Protocol):
    """Rubrics, their versions, and which one holds for whom."""

    def default_for(self, workspace: WorkspaceId, agent_id: uuid.UUID) -> NamedRubric | None:
        """The agent's own rubric, or else its workspace's, or None where neither has one."""
        ...

    def named(self, workspace: WorkspaceId, name: str) -> NamedRubric | None:
        """The workspace's rubric of this name that was stored last, or None where it has none."""
        ...

    def version(self, workspace: WorkspaceId, rubric: NamedRubric, judge: JudgeSpec) -> RubricVersion:
        """The version with this content, stored if it is new."""
        ...

    def set_default(self, workspace_name: str, rubric: NamedRubric, *, agent_ref: str | None) -> None:
        """Make this the rubric of a workspace, or of one of its agents. Raises LookupError where there's no such agent."""
        ...


class Evaluations(Protocol):
    """Evaluations as work: claimed, extended, recorded. All times of leases are the database's own."""

    def ensure_all(
        self, wanted: Sequence[tuple[CallKey, RubricVersion]], *, lane: Lane, max_attempts: int
    ) -> Sequence[uuid.UUID]:
        """The evaluation of each call under its version, in this order, made (pending) if there is none."""
        ...

    def status(self, evaluation_id: uuid.UUID) -> WorkStatus | None:
        """Where the work stands."""
        ...

    def queue_new(self, evaluation_ids: Sequence[uuid.UUID], *, in_flight_limit: int) -> set[uuid.UUID]:
        """Note that messages are about to be sent: for those that are pending and due, as far as the limit leaves room."""
        ...

    def of_calls(self, call_ids: Sequence[CallId]) -> Mapping[CallId, uuid.UUID]:
        """The evaluation of each call that was asked for last; calls without one are left out."""
        ...

    def asked(self, about: Sequence[tuple[CallId, uuid.UUID | None]], *, share: int) -> Sequence[Asked | None]:
        """Each of these calls with this evaluation of it, or the one that was asked for last; None: nobody stored the call."""
        ...

    def claim(
        self,
        evaluation_ids: Sequence[uuid.UUID],
        *,
        lease_s: float,
        of_calls: Sequence[CallId] = (),
        only_sent: bool = False,
    ) -> Sequence[Claimed | Malformed]:
        """Take those of these that are free and due: attempt + 1, a fresh token for each.

        With `of_calls`: only of these calls, and with `only_sent` only what is queued for them.
        Commit before working on them: the attempt counts even where the row kills whoever reads it.
        """
        ...

    def failures(self, evaluation_id: uuid.UUID, kind: FailureKind) -> int:
        """How many attempts ended in a failure of this kind, since the evaluation last began anew."""
        ...

    def hold(self, leases: Sequence[Lease]) -> Held:
        """Lock the rows of these leases for the rest of the transaction, as far as they are still ours."""
        ...

    def finish(
        self, lease: Lease, call: CallKey, evaluation: Evaluation, evidence: Evidence, record: AttemptRecord
    ) -> None:
        """Store the result with the commit, and make it the call's current one unless a newer evaluation of it is done.

        The commit raises LeaseLost. Doing it again after a commit whose answer was lost changes nothing.
        """
        ...

    def charge(self, lease: Lease, record: AttemptRecord) -> None:
        """Book what an attempt has cost whose lease was lost: its result is dropped, its bill is not."""
        ...

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, record: AttemptRecord) -> None:
        """Back to pending for so many seconds; the attempt is undone unless it `counts`. Raises LeaseLost."""
        ...

    def bury(self, lease: Lease, *, evidence: Evidence | None, record: AttemptRecord) -> None:
        """Given up: `not_evaluated`, with the reason. Raises LeaseLost."""
        ...

    def in_flight(self) -> Mapping[WorkspaceId, int]:
        """How much of each workspace's work is queued or running."""
        ...

    def wanted_models(self) -> Collection[str]:
        """The models that pending work is graded by; an empty name stands for judges without one."""
        ...

    def begin_dispatch(self) -> UnderWay | None:
        """What is under way, for whom alone may dispatch until the transaction ends; None where that is another one."""
        ...

    def due(self, room: Room, *, batch: int) -> Sequence[WorkRef]:
        """Take due pending work, live lane first, workspaces in turn, as far as there is room, and mark it queued."""
        ...

    def free_expired(self, *, limit: int) -> tuple[int, int]:
        """End the attempts of dead workers: back to pending, or dead where attempts are used up. (freed, buried).

        What an open batch holds is left to the job that goes on with batches.
        """
        ...

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[WorkRef]:
        """Work that was queued longer ago than that and never claimed; its clock starts again.

        `waiting`: as many of the queued rows still have their messages in the broker, and are left alone.
        """
        ...

    def revive(self, call_ids: Sequence[CallId]) -> Sequence[WorkRef]:
        """Dead evaluations of these calls (of all, where none is named) begin anew, with a fresh budget of attempts.

        So do those of calls that are named whose answers could not be read. Their dead letters are settled with it. Those
        of runs stay as they are: a run is graded by its own replay.
        """
        ...

    def revive_one(self, evaluation_id: uuid.UUID) -> WorkRef | None:
        """As `revive`, of one evaluation, whose letter the caller settles; None where it isn't dead any more, or is a run's."""
        ...


class LogContext(Protocol):
    """What every later log line of this piece of work carries."""

    def bind(self, **ids: str | int) -> None:
        """Add ids, never anything that was said."""
        ...

    def fault(self, error: Exception, **ids: str | int) -> None:
        """Report an error of ours with its type and place; its text stays out."""
        ...


class UnitOfWork(Protocol):
    """One transaction. Rolls back on exit unless `commit` was called; messages leave after the commit, or never."""

    @property
    def calls(self) -> Calls: ...
    @property
    def rubrics(self) -> Rubrics: ...
    @property
    def evaluations(self) -> Evaluations: ...
    @property
    def alert_rules(self) -> AlertRules: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def incidents(self) -> Incidents: ...
    @property
    def endpoints(self) -> Endpoints: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def suites(self) -> Suites: ...
    @property
    def dead_letters(self) -> DeadLetters: ...

    def nudge(self, message: Message) -> None:
        """Send this after the commit. A broker that is away costs time, nothing else: the sweep sends it again."""
        ...

    def commit(self) -> None:
        """Make it true, then send the messages."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class UnitOfWorkFactory(Protocol):
    """Begins a transaction. Raises StoreUnavailable where the database is away."""

    def __call__(self) -> UnitOfWork: ...


class Records(Protocol):
    """Writes results, perhaps several of them in one transaction."""

    def write(self, what: Callable[[UnitOfWork], None], *, lease: Lease | None = None) -> None:
        """Do this in a transaction and return when it is committed. `what` may be run more than once.

        With the `lease` of an evaluation: only while it is ours, or else LeaseLost is raised; not at all where its end
        is recorded already. Raises whatever `what` raised, and StoreUnavailable.
        """
        ...

    def submit(self, what: Callable[[UnitOfWork], None], *, lease: Lease | None = None) -> Future[None]:
        """As `write`, without waiting: the future ends, or raises, when the transaction has."""
        ...


class Leases(Protocol):
    """Keeps this process's leases alive while their work goes on."""

    def hold(self, leases: Sequence[Lease]) -> AbstractContextManager[None]:
        """Extend the leases until the block ends."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a sender wants its calls graded; None leaves it to what holds for the agent, the workspace, the system."""

    rubric: NamedRubric | None = None
    judge: JudgeKind | None = None
    lane: Lane = Lane.LIVE


ANY = Wanted()


@dataclass(frozen=True, slots=True)
class Grading:
    """How calls are graded where nobody says otherwise: the rubric, the judge, its settings, attempts."""

    rubric: NamedRubric
    judge: JudgeKind
    model: str
    effort: str
    max_tokens: int
    max_attempts: int
    votes: int = 1
    borderline: int = 0

    def spec(self, rubric: NamedRubric, judge: JudgeKind | None) -> JudgeSpec:
        """The judge for a rubric; `judge` None takes the default one."""
        kind = judge or self.judge
        if kind is JudgeKind.RULES:
            return JudgeSpec(kind)
        overrides = rubric.overrides
        votes = overrides.votes or self.votes
        borderline = self.borderline if overrides.borderline is None else overrides.borderline
        return JudgeSpec(
            kind,
            model=overrides.model or self.model,
            effort=overrides.effort or self.effort,
            max_tokens=overrides.max_tokens or self.max_tokens,
            votes=votes,
            borderline=borderline if votes > 1 else 0,
        )
