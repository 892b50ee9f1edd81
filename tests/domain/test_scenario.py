from __future__ import annotations

from dataclasses import replace

from qa_worker.domain.scenario import Limits, Play, Scenario, fingerprint, known_to_caller

SCENARIO = Scenario(
    id="s",
    title="S",
    agent="booking",
    play=Play.FREE,
    persona="Old.",
    goal="A table.",
    facts={"phone": "0172"},
    opening="Hello.",
    steps=("Yes.",),
)


def test_the_opening_is_the_first_of_the_fixed_lines() -> None:
    assert SCENARIO.lines == ("Hello.", "Yes.")
    assert replace(SCENARIO, opening="").lines == ("Yes.",)


def test_the_caller_knows_the_brief_and_nothing_of_what_is_expected() -> None:
    assert known_to_caller(SCENARIO) == ("Old.", "A table.", "", "0172", "Hello.", "Yes.")


def test_a_scenario_is_another_one_when_what_is_played_or_expected_changes() -> None:
    same = replace(SCENARIO, title="Other title", tags=("x",), repeats=5)
    others = (
        replace(SCENARIO, steps=("No.",)),
        replace(SCENARIO, limits=Limits(max_turns=5)),
        replace(SCENARIO, facts={"phone": "0173"}),
    )

    assert fingerprint(same) == fingerprint(SCENARIO)
    assert len({fingerprint(SCENARIO), *map(fingerprint, others)}) == 4
