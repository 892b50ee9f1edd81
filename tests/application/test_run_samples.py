"""The sample library on the real engine: scripted on both sides, graded by rules, as it runs without a key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qa_worker import samples
from qa_worker.adapters.agents.scripted import ScriptedAgent, ScriptedCaller
from qa_worker.adapters.importers.agent_file import parse_agent
from qa_worker.adapters.importers.scenario import parse_scenario
from qa_worker.application.playing import AgentPlayer, CallerPlayer, PlayContext
from tests.conftest import UnitsOfWork
from tests.running import Stage

pytestmark = pytest.mark.services

FOLDER = Path(samples.__file__).parent


class Scripted:
    """Implements the port `Players` with fixed words."""

    def agent(self, context: PlayContext) -> AgentPlayer:
        return ScriptedAgent(context.agent.script)

    def caller(self, context: PlayContext) -> CallerPlayer:
        assert context.scenario.lines
        return ScriptedCaller()


@pytest.mark.parametrize("name", ["booking", "support", "clinic"])
def test_the_samples_of_an_agent_pass(uow: UnitsOfWork, name: str) -> None:
    agent = parse_agent((FOLDER / "agents" / f"{name}.yaml").read_text(), source=name)
    written = sorted((FOLDER / "scenarios").glob(f"{name}-*.yaml"))
    scenarios = [parse_scenario(path.read_text(), source=path.name) for path in written]
    stage = Stage(uow)
    stage.tools = replace(stage.tools, players=Scripted())
    suite = stage.start(*scenarios, agent=agent)
    stage.play_all(suite)

    result = stage.queries.result(suite)
    assert result is not None
    assert [(run.scenario, run.why) for run in result.runs if run.state.value != "passed"] == []
    assert stage.suite(suite).state == "done"
