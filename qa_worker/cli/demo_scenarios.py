"""The part of `make run` that plays the sample scenarios, and a planted regression with them. It costs nothing."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from qa_worker import bootstrap
from qa_worker.application.playing import AgentKind, Target
from qa_worker.application.running import WantedSuite
from qa_worker.cli.console import errors, results
from qa_worker.cli.render import plain
from qa_worker.cli.scenario_live import Board, follow
from qa_worker.cli.scenario_render import brief
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.comparison import compare, readable
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.scenario import Play, Scenario
from qa_worker.domain.suite import SuiteResult
from qa_worker.samples.agents import agent_files
from qa_worker.samples.regression import forgets_tool
from qa_worker.samples.scenarios import scenario_files

_REGRESSED, _FORGOTTEN = "clinic", "find_patient"
_WAIT_S = 120.0


def play_samples(client: bootstrap.Client, *, workspace: str) -> None:
    """Play all sample scenarios at the same time, watched live, and say what came of it in a few lines."""
    agents = {one.agent.id: one for one in (bootstrap.read_agent(file)[0] for file in agent_files())}
    # By their fixed lines also where there is a key: a demo spends nothing.
    scenarios = [replace(bootstrap.read_scenario(file), play=Play.SCRIPT) for file in scenario_files()]
    worse = forgets_tool(agents[_REGRESSED], _FORGOTTEN, version="with a planted regression")
    versions = {**agents, f"{_REGRESSED} (regressed)": worse}
    errors.print(
        f"Scenarios: {len(scenarios)} simulated callers test {len(agents)} sample agents, all at once. "
        "Played by scripts, judged by rules."
    )
    suites = {
        name: client.suites.start(_suite(name, version, scenarios), workspace=workspace)
        for name, version in versions.items()
    }
    _watch_all(client.suites, suites, workspace)
    found = {name: client.suites.result(suite_run_id, workspace=workspace) for name, suite_run_id in suites.items()}
    _tell({name: result for name, result in found.items() if result is not None}, agents)


def _suite(name: str, agent: AgentUnderTest, scenarios: Sequence[Scenario]) -> WantedSuite:
    fitting = tuple(scenario for scenario in scenarios if scenario.agent == agent.agent.id)
    return WantedSuite(
        name=name,
        scenarios=fitting,
        agent=agent,
        target=Target(AgentKind.SCRIPTED),
        max_parallel=len(fitting),
        judge=JudgeKind.RULES,
        created_by="qa-worker evaluate --samples",
    )


def _watch_all(suites: bootstrap.Suites, ids: Mapping[str, uuid.UUID], workspace: str) -> None:
    how = {"workspace": workspace, "timeout_s": _WAIT_S}
    with Board(lines=False) as board:
        for name, suite_run_id in ids.items():
            board.expect(suite_run_id, name)
        # Daemons: an interrupted command doesn't wait for them.
        threads = [
            threading.Thread(target=follow, args=(suites, one, board), kwargs=how, daemon=True) for one in ids.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _tell(found: Mapping[str, SuiteResult], agents: Mapping[str, AgentUnderTest]) -> None:
    for name in agents:
        if name in found:
            results.print(brief(found[name]), highlight=False, soft_wrap=True)
    old, new = found.get(_REGRESSED), found.get(f"{_REGRESSED} (regressed)")
    if old is not None and new is not None:
        verdict, figures, *_ = readable(compare(old, new))
        results.print(
            f"[bold]A planted regression[/bold] ({_REGRESSED} without {_FORGOTTEN}). {plain(verdict)}. {plain(figures)}",
            highlight=False,
            soft_wrap=True,
        )
