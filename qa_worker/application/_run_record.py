"""Recording how a run ends or waits, and what follows for its suite, in one transaction each."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from qa_worker import messages
from qa_worker.application._grading import Tools
from qa_worker.application._matching import note_event
from qa_worker.application.playing import Players
from qa_worker.application.ports import Clock, Leases, Records, UnitOfWork, UnitOfWorkFactory
from qa_worker.application.purse import Left
from qa_worker.application.running import ClaimedRun, Progress, ProgressEvent, RunRef, SuiteState
from qa_worker.domain.alert_rule import Event, RuleKind
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt
from qa_worker.domain.playback import Rows, now_s
from qa_worker.domain.retry import RetryPolicy, Tried, next_step
from qa_worker.domain.run import Completion, Ended, RunState, settle

BATCH = 500


@dataclass(frozen=True, slots=True)
class SuiteTools:
    """What keeping suites going needs of the world. `in_flight_limit` is of all suites together."""

    uow: UnitOfWorkFactory
    clock: Clock
    in_flight_limit: int


@dataclass(frozen=True, slots=True)
class RunTools:
    """What playing runs needs of the world.

    grading: how their conversations are graded; its `leases` are those of evaluations. leases: those of runs.
    settling: writes each end in a transaction of its own, because that locks the suite.
    policy: when a run goes on whose player failed. deadline_s: how long a run may take in all, waits included, before it
    is graded as far as it came; its grading is waited for as long again.
    caller_retries: how often a repeat is played again that the caller spoilt.
    """

    suites: SuiteTools
    grading: Tools
    players: Players
    leases: Leases
    settling: Records
    progress: Progress
    sleep: Callable[[float], None]
    policy: RetryPolicy
    deadline_s: float
    caller_retries: int = 2


def end_run(claimed: ClaimedRun, rows: Rows, ended: Ended, tools: RunTools, *, failure: Failure | None = None) -> Done:
    """Record the end of a run that needs no grading. Raises LeaseLost, StoreUnavailable."""
    tools.settling.write(lambda work: write_end(work, claimed, ended, tools, failure=failure))
    tell(claimed, rows, ended.state, tools)
    return Done(ended.state.value)


def write_end(
    work: UnitOfWork,
    claimed: ClaimedRun,
    ended: Ended,
    tools: RunTools,
    *,
    failure: Failure | None = None,
    agent_id: uuid.UUID | None = None,
) -> None:
    """The run's row, another attempt where the caller spoilt this one, alerts that are due, what goes next."""
    ref = claimed.ref
    work.runs.settle(claimed.lease, ended, failure=failure)
    if ended.state is RunState.INVALID and claimed.attempt_no <= tools.caller_retries:
        work.runs.again(ref.id)
    if ended.state is RunState.FAILED:
        note_failed(work, ref, f"failed: {ended.completion.value}", tools.suites, agent_id=agent_id)
    elif ended.state is RunState.ERROR:
        why = ended.completion.value if failure is None else failure.code
        note_failed(work, ref, f"could not be measured: {why}", tools.suites, agent_id=agent_id)
    go_on(work, ref.suite_run_id, tools.suites)


def note_failed(
    work: UnitOfWork, ref: RunRef, why: str, tools: SuiteTools, *, agent_id: uuid.UUID | None = None
) -> None:
    """Append what a run matches that failed, or says nothing of its agent."""
    subject = work.runs.subject(ref.id)
    detail = f"scenario {subject.scenario} {why}"
    event = Event(RuleKind.RUN_FAILED, str(ref.id), agent_id or subject.agent_id, tools.clock.now(), detail)
    note_event(work, ref.workspace, event)


def go_on(work: UnitOfWork, suite_run_id: uuid.UUID, tools: SuiteTools) -> None:
    """End the suite where nothing is left of it, then send what there is room for now, of whichever suite."""
    end_suite(work, suite_run_id, tools)
    send_due(work, tools)


def end_suite(work: UnitOfWork, suite_run_id: uuid.UUID, tools: SuiteTools) -> None:
    """End the suite where nothing is left of it."""
    end = work.suites.complete(suite_run_id)
    if end is not None and (end.failed or end.unmeasured) and end.state is SuiteState.DONE:
        detail = f"{end.failed} of {end.counted} measured runs failed"
        if end.unmeasured:
            detail += f", {end.unmeasured} could not be measured"
        event = Event(RuleKind.SUITE_FAILED, str(end.id), end.agent_id, tools.clock.now(), detail)
        note_event(work, end.workspace, event)


def send_due(work: UnitOfWork, tools: SuiteTools, *, left: Left | None = None) -> int:
    """Send due runs to the workers as far as there is room, suites in turn; returns how many.

    What a run has freed is for all suites, not for its own: otherwise a long one keeps the shared limit for itself. What
    waits for a spent budget is sent only by who knows what is `left`.
    """
    due = work.suites.queue_due(limit=tools.in_flight_limit, batch=BATCH, left=left)
    for run_id in due:
        work.nudge(messages.run_scenario(run_id))
    return len(due)


def postpone(claimed: ClaimedRun, rows: Rows, failure: Failure, tools: RunTools) -> Done | RetryAt | Parked | Dead:
    """A player could not go on: the run waits where it stands, or is given up. Raises LeaseLost, StoreUnavailable."""
    return wait_or_end(claimed, rows, next_after(claimed, failure, tools), failure, tools)


def wait_or_end(
    claimed: ClaimedRun, rows: Rows, step: RetryAt | Parked | Dead, failure: Failure, tools: RunTools
) -> Done | RetryAt | Parked | Dead:
    """Record this step of a run; the outcome, which is another one where the run was to be cancelled."""
    states: list[RunState] = []
    tools.settling.write(lambda work: states.append(write_wait(work, claimed, step, failure, tools)))
    return told(claimed, rows, step, states[-1], tools)


def told(
    claimed: ClaimedRun, rows: Rows, step: RetryAt | Parked | Dead, state: RunState, tools: RunTools
) -> Done | RetryAt | Parked | Dead:
    """Say what `write_wait` has made of the run; the outcome."""
    tell(claimed, rows, state, tools)
    return Done(state.value) if state is RunState.CANCELLED else step


def next_after(claimed: ClaimedRun, failure: Failure, tools: RunTools) -> RetryAt | Parked | Dead:
    """When the run is tried again after this failure."""
    lease, grading = claimed.lease, tools.grading
    unreadable = claimed.unreadable + (failure.kind is FailureKind.UNREADABLE)
    now, jitter = grading.clock.now(), grading.jitter.fraction()
    return next_step(
        tools.policy, failure, tried=Tried(lease.attempt, lease.parked, unreadable), now=now, jitter=jitter
    )


def allowed_s(claimed: ClaimedRun, tools: RunTools) -> float:
    """How long this run may take in all, in seconds."""
    return max(tools.deadline_s, claimed.context.limits.run_s)


def waits_beyond(step: RetryAt | Parked | Dead, until: datetime | None) -> bool:
    """Whether this step is a wait that ends later than that."""
    match step:
        case RetryAt(when, _) | Parked(when, _):
            return until is not None and when > until
        case Dead():
            return False
        case _:
            assert_never(step)


def write_wait(
    work: UnitOfWork, claimed: ClaimedRun, step: RetryAt | Parked | Dead, failure: Failure, tools: RunTools
) -> RunState:
    """The run's row, and what may go in its place; the state it is in. It gets seconds, counted by the database's clock.

    One that was to be cancelled waits for nothing, and is cancelled now.
    """
    if work.runs.hold(claimed.lease):
        write_end(work, claimed, settle(Completion.CANCELLED), tools)
        return RunState.CANCELLED
    now = tools.grading.clock.now()
    match step:
        case RetryAt(when, reason):
            wait_s = (when - now).total_seconds()
            work.runs.wait(claimed.lease, wait_s=wait_s, reason=reason, counts=True, failure=failure)
            go_on(work, claimed.ref.suite_run_id, tools.suites)
        case Parked(until, reason):
            wait_s = (until - now).total_seconds()
            work.runs.wait(claimed.lease, wait_s=wait_s, reason=reason, counts=False, failure=failure)
            go_on(work, claimed.ref.suite_run_id, tools.suites)
        case Dead():
            ended = settle(Completion.ERROR, message=failure.message)
            write_end(work, claimed, ended, tools, failure=failure)
            return ended.state
        case _:
            assert_never(step)
    return RunState.PENDING


def tell(claimed: ClaimedRun, rows: Rows, state: RunState, tools: RunTools) -> None:
    """Say where the run stands to whoever watches."""
    event = ProgressEvent(claimed.ref.id, claimed.ref.suite_run_id, state, len(rows), now_s(rows))
    tools.progress.publish(event)
