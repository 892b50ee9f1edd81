"""Recording how a run ends or waits, and what follows for its suite, in one transaction each."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from qa_worker import messages
from qa_worker.application._grading import Tools
from qa_worker.application._matching import note_event
from qa_worker.application.playing import Players
from qa_worker.application.ports import Clock, Leases, Records, UnitOfWork, UnitOfWorkFactory
from qa_worker.application.running import ClaimedRun, Progress, ProgressEvent, RunRef, SuiteState
from qa_worker.domain.alert_rule import Event, RuleKind
from qa_worker.domain.failure import Failure
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt
from qa_worker.domain.playback import Rows, now_s
from qa_worker.domain.retry import Tried, next_step
from qa_worker.domain.run import Completion, Ended, RunState, settle


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
    caller_retries: how often a repeat is played again that the caller spoilt.
    """

    suites: SuiteTools
    grading: Tools
    players: Players
    leases: Leases
    settling: Records
    progress: Progress
    sleep: Callable[[float], None]
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
    """End the suite where nothing is left of it; otherwise send as much as it has room for now."""
    end = work.suites.complete(suite_run_id)
    if end is not None:
        if (end.failed or end.unmeasured) and end.state is SuiteState.DONE:
            detail = f"{end.failed} of {end.counted} measured runs failed"
            if end.unmeasured:
                detail += f", {end.unmeasured} could not be measured"
            event = Event(RuleKind.SUITE_FAILED, str(end.id), end.agent_id, tools.clock.now(), detail)
            note_event(work, end.workspace, event)
        return
    for run_id in work.suites.queue_next(suite_run_id, limit=tools.in_flight_limit):
        work.nudge(messages.run_scenario(run_id))


def postpone(claimed: ClaimedRun, rows: Rows, failure: Failure, tools: RunTools) -> RetryAt | Parked | Dead:
    """A player could not go on: the run waits where it stands, or is given up. Raises LeaseLost, StoreUnavailable."""
    step = next_after(claimed, failure, tools)
    tools.settling.write(lambda work: write_wait(work, claimed, step, failure, tools))
    tell(claimed, rows, RunState.ERROR if isinstance(step, Dead) else RunState.PENDING, tools)
    return step


def next_after(claimed: ClaimedRun, failure: Failure, tools: RunTools) -> RetryAt | Parked | Dead:
    """When the run is tried again after this failure."""
    lease, grading = claimed.lease, tools.grading
    # Attempts of a run aren't told apart by their failures: all of them count as unreadable where this one was.
    tried = Tried(lease.attempt, lease.parked, unreadable=lease.attempt)
    now, jitter = grading.clock.now(), grading.jitter.fraction()
    return next_step(grading.policy, failure, tried=tried, now=now, jitter=jitter)


def write_wait(
    work: UnitOfWork, claimed: ClaimedRun, step: RetryAt | Parked | Dead, failure: Failure, tools: RunTools
) -> None:
    """The run's row, and what may go in its place. It gets seconds, counted by the database's clock."""
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
        case _:
            assert_never(step)


def tell(claimed: ClaimedRun, rows: Rows, state: RunState, tools: RunTools) -> None:
    """Say where the run stands to whoever watches."""
    event = ProgressEvent(claimed.ref.id, claimed.ref.suite_run_id, state, len(rows), now_s(rows))
    tools.progress.publish(event)
