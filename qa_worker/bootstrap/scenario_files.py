"""Scenarios and agents out of files, and results of suites as files."""

from __future__ import annotations

from pathlib import Path

from qa_worker.adapters.importers.agent_file import agent_problems, parse_agent_and_target
from qa_worker.adapters.importers.scenario import parse_scenario, scenario_problems
from qa_worker.adapters.importers.scenario_text import scenario_yaml
from qa_worker.adapters.reports.json_report import comparison_json, run_json, suite_json
from qa_worker.adapters.reports.junit import junit_xml
from qa_worker.application.playing import Target
from qa_worker.bootstrap.grading import default_rubric
from qa_worker.bootstrap.players import target_of
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.scenario import Scenario
from qa_worker.settings import settings

__all__ = [
    "agent_faults",
    "comparison_json",
    "junit_xml",
    "own_rubric",
    "read_agent",
    "read_scenario",
    "run_json",
    "scenario_faults",
    "scenario_yaml",
    "suite_json",
]


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file. Raises InvalidInput."""
    return parse_scenario(_text(path), source=str(path))


def scenario_faults(path: Path) -> tuple[InvalidInput, ...]:
    """Everything that is wrong with the scenario of a file."""
    try:
        return scenario_problems(_text(path), source=str(path))
    except InvalidInput as unread:
        return (unread,)


def read_agent(path: Path) -> tuple[AgentUnderTest, Target]:
    """The agent of a file, and how it is reached from here. Raises InvalidInput."""
    agent, target = parse_agent_and_target(_text(path), source=str(path))
    return agent, target_of(agent, target, has_key=settings().anthropic_api_key is not None)


def agent_faults(path: Path) -> tuple[InvalidInput, ...]:
    """Everything that is wrong with the agent of a file."""
    try:
        return agent_problems(_text(path), source=str(path))
    except InvalidInput as unread:
        return (unread,)


def own_rubric() -> str:
    """The name of the rubric that every installation has."""
    return default_rubric().rubric.name


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidInput("(file)", f"can't be read: {reason}", "Check its path", source=str(path)) from None
    except UnicodeDecodeError:
        raise InvalidInput("(file)", "is not text in UTF-8", "Save it as UTF-8", source=str(path)) from None
