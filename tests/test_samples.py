"""The sample calls are what the demo shows first, and what the checks are tried on."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest

from qa_worker.adapters.importers.files import read_calls
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.domain.call import Call
from qa_worker.domain.evidence.collect import collect
from qa_worker.domain.evidence.facts import Check
from qa_worker.domain.transcript import Role
from qa_worker.rubrics import default_rubric_text
from qa_worker.samples import sample_files


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    """Every sample call; fails on the first that can't be imported."""
    found = [item for path in sample_files() for item in read_calls(path, limits=Limits(), source=path.name)]
    assert [str(item) for item in found if not isinstance(item, Call)] == []
    return [item for item in found if isinstance(item, Call)]


def test_there_are_calls_of_three_agents_under_ids_of_their_own(calls: list[Call]) -> None:
    per_agent = Counter(call.agent.id for call in calls)

    assert set(per_agent) == {"booking", "support", "clinic"}
    assert min(per_agent.values()) >= 9
    assert len({call.ref for call in calls}) == len({call.external_id for call in calls}) == len(calls) >= 27


def test_both_formats_are_shown() -> None:
    first = [json.loads(path.read_text(encoding="utf-8").splitlines()[0]) for path in sample_files()]

    assert ["messages" in record for record in first] == [False, False, True]


def test_every_agent_has_instructions_and_tools_and_every_call_a_time(calls: list[Call]) -> None:
    for call in calls:
        assert len(call.agent.instructions) > 500
        assert len(call.agent.tools) >= 5
        assert call.started_at is not None


def test_calls_are_of_a_believable_length_and_all_different(calls: list[Call]) -> None:
    assert all(8 <= len(call.transcript) <= 30 for call in calls)
    openings = Counter(turn.text for call in calls for turn in call.transcript if turn.role is Role.CALLER)
    assert [text for text, times in openings.items() if times > 2] == []


def test_tools_are_those_of_the_agent_and_get_an_answer(calls: list[Call]) -> None:
    uses = [(call, use) for call in calls for use in call.transcript.tool_uses()]

    assert all(use.call.name in {tool.name for tool in call.agent.tools} for call, use in uses)
    assert [call.ref for call, use in uses if use.result is None] == ["booking-010"]
    assert len(uses) > 60


def test_times_are_those_of_people_speaking(calls: list[Call]) -> None:
    timed = [call for call in calls if all(turn.timed for turn in call.transcript)]
    untimed = [call for call in calls if not any(turn.timed for turn in call.transcript)]

    assert len(timed) >= 20
    assert untimed
    assert len(timed) + len(untimed) == len(calls)
    for call in timed:
        spoken = [(len(turn.text.split()), turn.start_s, turn.end_s) for _, turn in call.transcript.spoken()]
        long = [(words, (end or 0) - (start or 0)) for words, start, end in spoken if words >= 6]
        assert all(110 <= 60 * words / seconds <= 200 for words, seconds in long), call.ref


def test_labels_are_present_and_both_kinds_are_many(calls: list[Call]) -> None:
    labels = Counter(call.metadata["label"] for call in calls)

    assert labels["good"] >= 11
    assert labels["bad"] >= 11
    assert set(labels) == {"good", "bad"}
    assert all(bool(call.metadata["flaw"]) == (call.metadata["label"] == "bad") for call in calls)


def test_every_check_has_a_call_that_it_was_written_for(calls: list[Call]) -> None:
    named = {name for call in calls for name in call.metadata["checks"]}

    assert named == {check.value for check in Check}
    assert not any(call.metadata["checks"] for call in calls if call.metadata["label"] == "good")


def test_the_evidence_finds_in_each_call_what_it_was_written_for_and_nothing_else(calls: list[Call]) -> None:
    rubric, _ = parse_rubric(default_rubric_text(), source="default")
    for call in calls:
        evidence = collect(call.transcript, agent=call.agent, expected=call.expected, checks=rubric.checks)
        assert {fact.check.value for fact in evidence.facts} == set(call.metadata["checks"]), call.ref


def test_phrases_that_calls_expect_are_in_good_calls(calls: list[Call]) -> None:
    for call in calls:
        said = " ".join(turn.text for turn in call.transcript if turn.role is Role.AGENT).casefold()
        if call.metadata["label"] == "good":
            assert all(phrase.casefold() in said for phrase in call.expected.required_phrases), call.ref
            assert not any(phrase.casefold() in said for phrase in call.expected.forbidden_phrases), call.ref


def test_good_calls_answer_faster_than_the_default_rubric_complains(calls: list[Call]) -> None:
    rubric, _ = parse_rubric(default_rubric_text(), source="default")
    for call in calls:
        if call.metadata["label"] == "good" and call.transcript.turns[0].timed:
            ends = [(turn.start_s or 0, turn.end_s or 0) for _, turn in call.transcript.spoken()]
            gaps = [later[0] - earlier[1] for earlier, later in pairwise(ends)]
            assert max(gaps) < rubric.checks.slow_response_s, call.ref
            assert min(gaps) >= 0, call.ref
