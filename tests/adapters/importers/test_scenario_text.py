from __future__ import annotations

from pathlib import Path

import pytest

from qa_worker.adapters.importers.files import read_calls
from qa_worker.adapters.importers.limits import Limits as CallLimits
from qa_worker.adapters.importers.scenario import parse_scenario
from qa_worker.adapters.importers.scenario_text import scenario_yaml
from qa_worker.domain.call import Call, Expected
from qa_worker.domain.drafting import draft
from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.scenario import ExpectedOutcome, Limits, Play, Scenario, ToolRule
from qa_worker.samples import sample_files
from qa_worker.samples.scenarios import scenario_files


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)
def test_writing_and_reading_a_scenario_changes_nothing(path: Path) -> None:
    scenario = parse_scenario(path.read_text(encoding="utf-8"), source="s")

    assert parse_scenario(scenario_yaml(scenario), source="s") == scenario


def test_what_the_library_has_not_is_kept_too() -> None:
    rules = (
        ArgumentRule("n", Match.AT_LEAST, 1),
        ArgumentRule("n", Match.AT_MOST, 9),
        ArgumentRule("guest", Match.EQUALS, {"name": "Hobbs"}),
    )
    scenario = Scenario(
        id="s",
        title="S",
        agent="a",
        play=Play.SCRIPT,
        steps=("yes", "2026-11-07", "Grüße: [silence - 2 s] #1"),
        expected=ExpectedOutcome(
            call=Expected(required_tools=("book",), forbidden_tools=("cancel",)),
            required=(ToolRule("book", rules), ToolRule("book", rules[:1])),
            forbidden=(ToolRule("credit", rules[2:]),),
        ),
        limits=Limits(max_turns=3, call_s=9.5),
        repeats=4,
        rubric="strict",
    )

    text = scenario_yaml(scenario)

    assert parse_scenario(text, source="s") == scenario
    assert "max_reply_tokens" not in text


def test_every_sample_call_can_be_drafted_written_and_read() -> None:
    calls = [call for path in sample_files() for call in read_calls(path, limits=CallLimits(), source=path.name)]
    drafts = [draft(call) for call in calls if isinstance(call, Call)]

    assert [parse_scenario(scenario_yaml(drafted), source="s") for drafted in drafts] == drafts
    assert len({drafted.id for drafted in drafts}) == len(calls)
