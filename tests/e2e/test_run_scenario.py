"""A suite of scenarios on real workers: killed in the middle, watched, cancelled. Scripted players, graded by rules."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from qa_worker.adapters.importers.agent_file import parse_agent
from qa_worker.adapters.importers.scenario import parse_scenario
from qa_worker.adapters.postgres.tables import run_turns, runs
from qa_worker.application.playing import Target
from qa_worker.application.running import ProgressEvent, SuiteProgress, SuiteState, WantedSuite
from qa_worker.bootstrap.scenarios import Suites
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.scenario import Scenario
from qa_worker.messages import Queue
from tests.e2e.conftest import System
from tests.e2e.workers import eventually

pytestmark = [pytest.mark.services, pytest.mark.e2e]

SAMPLES = Path("qa_worker/samples")
AGENT = parse_agent((SAMPLES / "agents" / "booking.yaml").read_text(), source="booking.yaml")
PLAIN = parse_scenario((SAMPLES / "scenarios" / "booking-elderly-slow.yaml").read_text(), source="scenario")


def a_suite(*scenarios: Scenario, repeats: int = 1, max_parallel: int = 64) -> WantedSuite:
    return WantedSuite("e2e", scenarios or (PLAIN,), AGENT, Target(), max_parallel, repeats, judge=JudgeKind.RULES)


def turns(system: System) -> dict[tuple[uuid.UUID, int], Any]:
    with system.engine.connect() as connection:
        rows = connection.execute(select(run_turns.c.run_id, run_turns.c.index.label("place"), run_turns.c.created_at))
        return {(row.run_id, row.place): row.created_at for row in rows}


def under_way(system: System) -> int:
    """Runs that have some turns and go on."""
    with system.engine.connect() as connection:
        begun = (runs.c.state == "running") & (runs.c.turn_count.between(2, 6)) & runs.c.completion.is_(None)
        return int(connection.execute(select(func.count()).where(begun)).scalar_one())


def is_done(suites: Suites, suite: uuid.UUID) -> bool:
    result = suites.result(suite, workspace="default")
    return result is not None and result.completed_at is not None


def test_runs_of_a_killed_worker_go_on_at_the_turn_where_they_stood(system: System) -> None:
    first = system.workers.start(Queue.RUN_SCENARIO)
    suite = system.client.suites.start(a_suite(repeats=60), workspace="default")
    eventually(lambda: under_way(system) >= 5, what="runs are in the middle")
    system.workers.kill(first)
    before = turns(system)
    with system.engine.connect() as connection:
        broken_off = set(connection.execute(select(runs.c.id).where(runs.c.state == "running")).scalars())
        killed_at = connection.execute(select(func.clock_timestamp())).scalar_one()
    assert broken_off

    system.workers.start(Queue.RUN_SCENARIO)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()
    eventually(lambda: is_done(system.client.suites, suite), what="the suite is done", within_s=90)

    after = turns(system)
    # None lost, none written again, none twice: each run holds exactly its conversation.
    assert {key: after[key] for key in before} == before
    said = {
        run_id: [row.turn.text for row in system.client.suites.turns(run_id, workspace="default")]
        for run_id, _ in after
    }
    assert len(said) == 60
    assert len({tuple(texts) for texts in said.values()}) == 1
    result = system.client.suites.result(suite, workspace="default")
    assert result is not None
    assert {run.state.value for run in result.runs} == {"passed"}
    with system.engine.connect() as connection:
        taken_up_at = connection.execute(select(runs.c.started_at).where(runs.c.id.in_(broken_off))).scalars()
        assert all(moment > killed_at for moment in taken_up_at)


def test_who_watches_sees_every_run_end(system: System) -> None:
    suite = system.client.suites.start(a_suite(repeats=5, max_parallel=2), workspace="default")
    watched = system.client.suites.watch(suite, workspace="default")
    past = next(watched)
    assert isinstance(past, SuiteProgress)
    assert {run.state.value for run in past.runs} == {"pending"}

    system.workers.start(Queue.RUN_SCENARIO)
    seen = list(watched)

    assert any(isinstance(one, ProgressEvent) for one in seen)
    end = seen[-1]
    assert isinstance(end, SuiteProgress)
    assert end.state is SuiteState.DONE
    assert {run.state.value for run in end.runs} == {"passed"}


def test_a_cancelled_suite_ends_and_keeps_what_happened(system: System) -> None:
    long = replace(PLAIN, id="long", steps=PLAIN.steps * 8, limits=replace(PLAIN.limits, max_turns=200, call_s=7200))
    suite = system.client.suites.start(a_suite(long, repeats=40, max_parallel=20), workspace="default")
    system.workers.start(Queue.RUN_SCENARIO)
    eventually(lambda: under_way(system) >= 1, what="a run is in the middle")

    assert system.client.suites.cancel(suite, workspace="default")
    eventually(lambda: is_done(system.client.suites, suite), what="the suite has ended", within_s=30)

    result = system.client.suites.result(suite, workspace="default")
    assert result is not None
    states = [run.state.value for run in result.runs]
    assert states.count("cancelled") > 20
    assert any(run.state.value == "cancelled" and run.turns for run in result.runs)
