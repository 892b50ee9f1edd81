"""Suite runs: begun, sent to the workers in turn, rescued, cancelled."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress

from qa_worker import messages
from qa_worker.application._run_record import BATCH, SuiteTools, end_suite, go_on, note_failed, send_due
from qa_worker.application.ports import Rescued, UnitOfWork
from qa_worker.application.purse import Left
from qa_worker.application.running import MOST_RUNS, WantedSuite
from qa_worker.domain.agent_under_test import unknown_tools
from qa_worker.domain.call import workspace_id
from qa_worker.domain.errors import Collided, InvalidInput

_TRIES = 3


def start_suite(
    wanted: WantedSuite, *, workspace_name: str, max_attempts: int, tools: SuiteTools, own_rubric: str = ""
) -> uuid.UUID:
    """Store a suite run and all its runs in one transaction, and send as many as it may have in flight.

    `own_rubric` is the name of the one that the installation has for every workspace.

    Raises:
        InvalidInput: nothing to run, too much of it, a scenario that doesn't fit the agent or names an unknown rubric.
        StoreUnavailable: the database is out of reach; nothing was stored.

    """
    _check(wanted)
    with tools.uow() as work:
        _check_rubrics(work, wanted, workspace_name, own_rubric)
        suite_run_id = work.suites.add(wanted, workspace_name=workspace_name, max_attempts=max_attempts)
        send_due(work, tools)
        work.commit()
    return suite_run_id


def _check(wanted: WantedSuite) -> None:
    if not wanted.scenarios:
        raise InvalidInput("scenarios", "there are none", "Name at least one scenario file")
    if wanted.size > MOST_RUNS:
        fix = f"Run at most {MOST_RUNS:,} at once: fewer scenarios, or fewer repeats"
        raise InvalidInput("scenarios", f"they make {wanted.size:,} runs", fix)
    if wanted.max_parallel < 1:
        raise InvalidInput("max_parallel", f"is {wanted.max_parallel}", "Write a whole number from 1")
    ids = [scenario.id for scenario in wanted.scenarios]
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice is not None:
        raise InvalidInput("scenarios", f"{twice} is there twice", "Give each scenario an id of its own")
    for scenario in wanted.scenarios:
        agent = wanted.agent.agent
        if scenario.agent != agent.id:
            problem = f"{scenario.id} calls the agent {scenario.agent!r}, and this one is {agent.id!r}"
            raise InvalidInput("agent", problem, "Run it against the agent that it was written for")
        unknown = unknown_tools(scenario, agent)
        if unknown:
            problem = f"{scenario.id} names {', '.join(unknown)}, which the agent {agent.id!r} doesn't have"
            raise InvalidInput("expected", problem, "Write the names of the agent's tools")


def _check_rubrics(work: UnitOfWork, wanted: WantedSuite, workspace_name: str, own_rubric: str) -> None:
    """Before anything is played: a run whose rubric nobody has can't be graded."""
    for scenario in wanted.scenarios:
        name = scenario.rubric
        if name is None or name == own_rubric or work.rubrics.named(workspace_id(workspace_name), name) is not None:
            continue
        problem = f"{scenario.id} names the rubric {name!r}, which the workspace {workspace_name!r} doesn't have"
        raise InvalidInput("rubric", problem, "Store it by `qa-worker rubric set-default FILE`, or leave the field out")


def dispatch_runs(*, tools: SuiteTools, left: Callable[[], Left]) -> int:
    """Send due runs to the workers, and apply cancels that were asked for; returns how many were sent.

    A run that was held back by a spent budget is sent again when something is `left` of it.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat tries again.

    """
    _apply_cancels(tools)
    money = left()
    with tools.uow() as work:
        sent = send_due(work, tools, left=money)
        work.commit()
    return sent


def rescue_runs(*, tools: SuiteTools, resend_after_s: float, waiting: Callable[[], int]) -> Rescued:
    """Find runs that got stuck: leases of dead workers, messages that the broker lost. One bounded sweep.

    `waiting` tells how many messages lie in the queue of runs: as many runs are not sent again.

    Raises:
        StoreUnavailable: the database or the broker is out of reach; the next beat tries again.

    """
    in_broker = waiting()
    with tools.uow() as work:
        freed, ended = work.runs.free_expired(limit=BATCH)
        lost = work.runs.unsent(older_than_s=resend_after_s, waiting=in_broker, limit=BATCH)
        for run_id in lost:
            work.nudge(messages.run_scenario(run_id))
        for ref in ended:
            note_failed(work, ref, "could not be measured: its workers died", tools)
        # In one order for everybody, because each locks its suite.
        for suite_run_id in sorted({ref.suite_run_id for ref in ended}):
            end_suite(work, suite_run_id, tools)
        # After all of them: it locks other suites without waiting for them, in no order.
        send_due(work, tools)
        work.commit()
    return Rescued(freed=freed, buried=len(ended), resent=len(lost))


def cancel_suite(*, suite_run_id: uuid.UUID, workspace_name: str, tools: SuiteTools) -> bool:
    """Stop a suite run: what waits at once, what runs before its next turn. False where the workspace has none such.

    Raises:
        StoreUnavailable: the database is out of reach; nothing was asked for.

    """
    with tools.uow() as work:
        known = work.suites.ask_cancel(suite_run_id, workspace_name=workspace_name)
        work.commit()
    if known:
        # By now no run of it can begin any more. Where this process dies here, the dispatcher does the rest.
        for _ in range(_TRIES):
            with suppress(Collided):
                _apply_cancels(tools)
                break
    return known


def cancel_run(*, run_id: uuid.UUID, workspace_name: str, tools: SuiteTools) -> bool:
    """Stop one run, as `cancel_suite` does. False where the workspace has none such."""
    with tools.uow() as work:
        ref = work.runs.cancel(run_id, workspace_name=workspace_name)
        if ref is not None:
            go_on(work, ref.suite_run_id, tools)
        work.commit()
    return ref is not None


def _apply_cancels(tools: SuiteTools) -> None:
    with tools.uow() as work:
        touched = work.suites.cancel_asked(limit=BATCH)
        for suite_run_id in sorted(touched):
            work.suites.complete(suite_run_id)
        work.commit()
