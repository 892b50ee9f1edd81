"""The sample scenarios are played through by the sample agents' scripts, and judged by rules: the library is what it says."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from qa_worker.adapters.importers.agent_file import parse_agent
from qa_worker.adapters.importers.files import read_calls
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.adapters.importers.scenario import parse_scenario
from qa_worker.domain import caller_validity, expectations, rules
from qa_worker.domain.agent_under_test import AgentUnderTest, unknown_tools
from qa_worker.domain.call import Call
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evaluation import Evaluation, Verdict
from qa_worker.domain.evidence.collect import collect
from qa_worker.domain.evidence.facts import Check, Evidence
from qa_worker.domain.folding import contains, words
from qa_worker.domain.markers import parse_freely
from qa_worker.domain.rubric import Rubric
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Play, Scenario, known_to_caller
from qa_worker.domain.transcript import Role
from qa_worker.domain.verdict import decide
from qa_worker.rubrics import default_rubric_text
from qa_worker.samples import sample_files
from qa_worker.samples.agents import agent_files
from qa_worker.samples.scenarios import scenario_files
from tests.playing import Played, play

SCENARIOS = {path.stem: parse_scenario(path.read_text(encoding="utf-8"), source=path.name) for path in scenario_files()}
AGENTS = {path.stem: parse_agent(path.read_text(encoding="utf-8"), source=path.name) for path in agent_files()}
HARD_CALLERS = {
    *("elderly-slow", "impatient", "forgetful", "changes-mind", "silent", "wrong-number", "spells-identifiers"),
    *("social-engineering", "prompt-injection", "asks-for-person", "background-talk"),
}
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.id)


@pytest.fixture(scope="module")
def rubric() -> Rubric:
    return parse_rubric(default_rubric_text(), source="default")[0]


def judged(scenario: Scenario, agent: AgentUnderTest, played: Played, rubric: Rubric) -> tuple[Evaluation, Evidence]:
    """What the judge that needs no model says of a run."""
    talked = played.transcript
    collected = collect(talked, agent=agent.agent, expected=scenario.expected.call, checks=rubric.checks)
    evidence = expectations.of_run(collected, played.completion, answered=played.turns[-1].role is not Role.CALLER)
    missed = expectations.check(talked, scenario.expected)
    assessment = expectations.filled(rules.assess(evidence, rubric=rubric, has_tools=True), scenario.expected)
    established = (*rules.established(evidence, rubric=rubric), *expectations.findings(missed, rubric=rubric))
    capped = expectations.capped(assessment, missed, rubric=rubric)
    return decide(capped, rubric=rubric, transcript=talked, established=established), evidence


def test_there_are_enough_scenarios_for_each_agent_and_every_hard_caller() -> None:
    assert len(SCENARIOS) >= 25
    assert [scenario.id for scenario in SCENARIOS.values()] == list(SCENARIOS)
    assert min(Counter(scenario.agent for scenario in SCENARIOS.values()).values()) >= 8
    assert {scenario.agent for scenario in SCENARIOS.values()} == set(AGENTS)
    assert {tag for scenario in SCENARIOS.values() for tag in scenario.tags} >= HARD_CALLERS


def test_both_ways_to_play_and_every_marker_are_shown() -> None:
    lines = " ".join(line for scenario in SCENARIOS.values() for line in scenario.lines)

    assert {scenario.play for scenario in SCENARIOS.values()} == set(Play)
    for marker in (
        "[silence - ",
        "[interrupts after 4 words]",
        '[interrupts after "',
        "[hangs up]",
        "[dtmf ",
        "[noise: ",
    ):
        assert marker in lines


def test_the_agents_are_those_of_the_sample_calls() -> None:
    read = [item for path in sample_files() for item in read_calls(path, limits=Limits(), source=path.name)]
    known = {call.agent.id: call.agent for call in read if isinstance(call, Call)}

    assert set(known) == set(AGENTS)
    for name, under_test in AGENTS.items():
        assert under_test.agent.tools == known[name].tools
        assert under_test.agent.instructions.startswith(known[name].instructions.strip())


@each_scenario
def test_a_scenario_names_only_tools_that_its_agent_has(scenario: Scenario) -> None:
    assert unknown_tools(scenario, AGENTS[scenario.agent].agent) == ()


@each_scenario
def test_a_free_caller_knows_every_number_that_it_has_to_give(scenario: Scenario) -> None:
    brief = replace(scenario, play=Play.FREE, opening="", steps=())
    spoken = play(scenario, AGENTS[scenario.agent]).transcript
    result = caller_validity.check(brief, spoken, Completion.SCRIPT_ENDED)

    assert [fault for fault in result.faults if fault.fault is caller_validity.CallerFault.INVENTED_FACT] == []
    assert scenario.play is Play.SCRIPT or len(" ".join(known_to_caller(brief))) > 60


@each_scenario
def test_a_first_line_chooses_one_conversation_of_the_script(scenario: Scenario) -> None:
    script = AGENTS[scenario.agent].script
    assert script is not None
    first = words(play(scenario, AGENTS[scenario.agent]).told[0])

    chosen = [talk for talk in script.conversations if any(contains(first, words(phrase)) for phrase in talk.begins)]

    assert len(chosen) == 1


@each_scenario
def test_a_scenario_is_played_to_its_end_and_passes(scenario: Scenario, rubric: Rubric) -> None:
    agent = AGENTS[scenario.agent]
    played = play(scenario, agent)
    evaluation, _ = judged(scenario, agent, played, rubric)

    assert agent.script is not None
    assert agent.script.otherwise.text not in [turn.text for turn in played.turns]
    assert played.unmatched == []
    assert caller_validity.check(scenario, played.transcript, played.completion).faults == ()
    assert (evaluation.verdict, evaluation.reasons) == (Verdict.PASS, ())
    if scenario.ends.tools or scenario.ends.said:
        assert expectations.goal_reached(played.transcript, scenario.ends)


@each_scenario
def test_an_agent_that_is_at_its_wits_end_does_not_pass(scenario: Scenario, rubric: Rubric) -> None:
    agent = AGENTS[scenario.agent]
    assert agent.script is not None
    lost = replace(agent, script=replace(agent.script, conversations=()))

    evaluation, _ = judged(scenario, lost, play(scenario, lost), rubric)

    assert evaluation.verdict is Verdict.FAIL


def test_interruptions_and_silence_show_in_the_timing_metrics(rubric: Rubric) -> None:
    found = {}
    for name in ("booking-impatient", "booking-elderly-slow", "support-silent", "booking-plain"):
        scenario = SCENARIOS[name]
        played = play(scenario, AGENTS[scenario.agent])
        _, evidence = judged(scenario, AGENTS[scenario.agent], played, rubric)
        assert evidence.timing is not None
        found[name] = evidence.timing
        assert Check.SLOW_RESPONSE not in {fact.check for fact in evidence.facts}

    assert found["booking-impatient"].caller_interruptions == 3
    assert found["booking-impatient"].overlap_s > 1.0
    assert found["booking-elderly-slow"].longest_silence_s == pytest.approx(15.0)
    assert found["support-silent"].dead_air_s == pytest.approx(35.0)
    assert (found["booking-plain"].caller_interruptions, found["booking-plain"].dead_air_s) == (0, 0.0)


def test_an_agent_that_talks_on_over_the_caller_is_found() -> None:
    scenario = SCENARIOS["booking-impatient"]
    played = play(scenario, AGENTS["booking"])
    numbers = [number for number, turn in enumerate(played.turns) if turn.text.endswith("[cut off by the caller]")]
    unheard = {number: found.unheard for number, found in zip(numbers, played.cuts, strict=True)}

    assert expectations.check(played.transcript, scenario.expected, unheard=unheard) == ()

    later = numbers[1] + 2
    played.turns[later] = replace(played.turns[later], text=unheard[numbers[1]])
    (miss,) = expectations.check(played.transcript, scenario.expected, unheard=unheard)
    assert miss.breach is expectations.Breach.TALKED_ON


def test_a_planted_regression_is_found_by_what_the_scenarios_expect(rubric: Rubric) -> None:
    agent = AGENTS["booking"]
    assert agent.script is not None
    careless = [
        replace(talk, replies=tuple(replace(reply, calls=reply.calls[:0]) for reply in talk.replies))
        for talk in agent.script.conversations
    ]
    worse = replace(agent, script=replace(agent.script, conversations=tuple(careless)))
    scenario = SCENARIOS["booking-plain"]

    evaluation, _ = judged(scenario, worse, play(scenario, worse), rubric)

    assert evaluation.verdict is Verdict.FAIL
    assert {finding.check for finding in evaluation.findings} == {"missing_required_tool"}


def _examples(language: str) -> list[str]:
    text = (Path(__file__).parent.parent / "docs" / "scenarios.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_documented_examples_are_what_is_read() -> None:
    scenario, agent = _examples("yaml")

    found = parse_scenario(scenario, source="docs")
    under_test = parse_agent(agent, source="docs")

    assert (found.limits.max_turns, found.repeats, len(found.lines)) == (12, 3, 4)
    assert unknown_tools(found, AGENTS["booking"].agent) == ()
    assert under_test.script is not None
    assert under_test.script.reply(["A table for two, please."]).text == "For which day?"


def test_the_documented_error_is_the_one_that_is_given() -> None:
    scenario, _ = _examples("yaml")
    (error,) = _examples("text")

    with pytest.raises(InvalidInput) as caught:
        parse_scenario(scenario.replace("[silence - 20 seconds]", "[silence - 20]"), source="booking.yaml")

    assert re.sub(r":\d+: steps\[\d\]", "", str(caught.value)) == re.sub(r":\d+: steps\[\d\]", "", error.strip())


def test_every_documented_marker_can_be_played() -> None:
    text = (Path(__file__).parent.parent / "docs" / "scenarios.md").read_text(encoding="utf-8")
    markers = re.findall(r"^\| `(\[.*?\])`", text, re.MULTILINE)

    assert len(markers) == 6
    assert [
        marker for marker in markers if parse_freely(f"{marker} Yes." if "hangs" not in marker else marker)[1]
    ] == []
