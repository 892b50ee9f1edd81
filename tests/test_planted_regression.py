"""The agent version that `make run` plants a regression in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qa_worker.adapters.importers.agent_file import parse_agent
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.samples.agents import agent_files
from qa_worker.samples.regression import forgets_tool

CLINIC = next(parse_agent(file.read_text(), source=file.name) for file in agent_files() if file.stem == "clinic")


def calls_of(agent: AgentUnderTest) -> list[str]:
    assert agent.script is not None
    return [call.name for talk in agent.script.conversations for reply in talk.replies for call in reply.calls]


def words_of(agent: AgentUnderTest) -> list[str]:
    assert agent.script is not None
    return [reply.text for talk in agent.script.conversations for reply in talk.replies]


def test_it_forgets_one_tool_and_nothing_else() -> None:
    worse = forgets_tool(CLINIC, "find_patient", version="v13")

    assert "find_patient" in calls_of(CLINIC)
    assert calls_of(worse) == [name for name in calls_of(CLINIC) if name != "find_patient"]
    assert words_of(worse) == words_of(CLINIC)
    assert (worse.agent.version, worse.agent.tools, worse.mocks) == ("v13", CLINIC.agent.tools, CLINIC.mocks)


def test_without_a_script_there_is_nothing_to_forget() -> None:
    with pytest.raises(ValueError, match="clinic has no script"):
        forgets_tool(replace(CLINIC, script=None), "find_patient", version="v13")
