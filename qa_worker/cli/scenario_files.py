"""Which scenario files a command means, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qa_worker import bootstrap
from qa_worker.application.playing import AgentKind, Target
from qa_worker.domain.agent_under_test import AgentUnderTest, unknown_tools
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.scenario import Scenario

_WITH_MOCKS = frozenset({AgentKind.SCRIPTED, AgentKind.CLAUDE, AgentKind.OPENAI})
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True, slots=True)
class Found:
    """The scenarios that can be read, each with its file, and every fault of all files."""

    scenarios: tuple[tuple[Path, Scenario], ...]
    faults: tuple[InvalidInput, ...]
    files: int


def read_scenarios(paths: Sequence[Path]) -> Found:
    """The scenarios of files and folders."""
    good: dict[str, tuple[Path, Scenario]] = {}
    faults: list[InvalidInput] = []
    files = {path: _files(path) for path in paths}
    faults += [_nothing(path) for path, below in files.items() if not below]
    # The same file twice is one file.
    every = list({file.resolve(): file for below in files.values() for file in below}.values())
    for file in every:
        found = bootstrap.scenario_faults(file)
        faults += found
        if found:
            continue
        scenario = bootstrap.read_scenario(file)
        if scenario.id in good:
            problem = f"{scenario.id!r} is that of {good[scenario.id][0]}, too"
            faults.append(InvalidInput("id", problem, "Give each scenario an id of its own", str(file)))
        good.setdefault(scenario.id, (file, scenario))
    return Found(tuple(good.values()), tuple(faults), len(every))


def misfits(scenarios: Sequence[tuple[Path, Scenario]], agents: Sequence[AgentUnderTest]) -> tuple[InvalidInput, ...]:
    """The scenarios that were written for none of these agents, or name tools that their agent doesn't have."""
    return tuple(fault for file, scenario in scenarios for fault in _misfits(file, scenario, agents))


def foreign_rubrics(scenarios: Sequence[tuple[Path, Scenario]]) -> Iterator[str]:
    """The scenarios whose rubric only a workspace can have: whether it does is seen when they are run."""
    for file, scenario in scenarios:
        if scenario.rubric is not None and scenario.rubric != bootstrap.own_rubric():
            yield f"{file}: rubric: {scenario.rubric!r} must be in the workspace, or a suite with it is refused"


def unanswered(file: Path, agent: AgentUnderTest, target: Target) -> Iterator[str]:
    """What a test would be at fault for: tools of a model that the file has no answers for."""
    if target.kind not in _WITH_MOCKS:
        return
    for name in agent.unmocked:
        yield f"{file}: tools: {name} has no mocks. A call of it gets an error, and counts as a fault of the test"


def _files(path: Path) -> list[Path]:
    """A file is itself; of a folder all that may be scenarios, below it, too."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())


def _nothing(path: Path) -> InvalidInput:
    return InvalidInput("(folder)", "holds no .yaml, .yml or .json file", "Name another one", source=str(path))


def _misfits(file: Path, scenario: Scenario, agents: Sequence[AgentUnderTest]) -> Iterator[InvalidInput]:
    agent = next((one.agent for one in agents if one.agent.id == scenario.agent), None)
    if agent is None:
        given = ", ".join(repr(one.agent.id) for one in agents)
        fix = "Choose scenarios of that agent by --tag or by their files, or give the file of this one by --agent"
        yield InvalidInput("agent", f"is {scenario.agent!r}, and the agent given is {given}", fix, str(file))
        return
    unknown = unknown_tools(scenario, agent)
    if unknown:
        problem = f"names {', '.join(unknown)}, which the agent {agent.id!r} doesn't have"
        yield InvalidInput("expected", problem, "Write the names of the agent's tools", str(file))
