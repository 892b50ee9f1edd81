"""What the scenario benchmark plays, and what it says of a measurement."""

from __future__ import annotations

import json
import urllib.request

import pytest

from benchmarks.scenarios import Load, _compared, an_agent, http_agent, scenarios
from qa_worker.domain.markers import parse_line


def test_every_turn_of_every_scenario_has_a_line_and_an_answer_of_its_own() -> None:
    agent = an_agent(turns=20)
    assert agent.script is not None
    for scenario in scenarios(Load(3, 20, 0.5)):
        assert len({*scenario.lines}) == 20
        assert scenario.limits.max_turns == 20
        answers = [agent.script.reply([parse_line(line).text for line in scenario.lines[: n + 1]]) for n in range(20)]
        assert len({answer.text for answer in answers}) == 20
        assert agent.script.otherwise not in answers


def test_runs_of_unequal_length_have_the_same_work_in_all_and_no_order() -> None:
    lengths = Load(128, 20, 0.5, spread=0.5).lengths

    assert (min(lengths), max(lengths)) == (10, 30)
    assert sum(lengths) == pytest.approx(128 * 20, rel=0.02)
    assert list(lengths) not in (sorted(lengths), sorted(lengths, reverse=True))
    assert [len(scenario.lines) for scenario in scenarios(Load(128, 20, 0.5, spread=0.5))] == list(lengths)


def test_the_floor_is_the_longest_run_or_all_work_over_the_slots() -> None:
    equal, unequal = Load(128, 20, 0.5), Load(64, 20, 0.5, spread=0.5)

    by_work = _compared(equal, 24.0, turn_s=0.5, slots=64)
    by_run = _compared(unequal, 18.0, turn_s=0.5, slots=64)

    assert (by_work["floor_s"], by_work["times_floor"], by_work["times_faster"]) == (20.0, 1.2, 53.3)
    assert by_work["waves_floor_s"] == by_work["floor_s"]
    assert (by_run["floor_s"], by_run["times_floor"], by_run["waves_floor_s"]) == (15.0, 1.2, None)
    # Two waves, of which the second is half empty: no schedule comes down to all work over the slots.
    assert _compared(Load(100, 20, 0.5), 20.0, turn_s=0.5, slots=64)["times_floor"] == 1.28


def test_the_agent_over_http_says_something_else_each_turn() -> None:
    with http_agent() as target:
        said = []
        for turn in (1, 2):
            request = urllib.request.Request(target.settings["url"], data=json.dumps({"turn": turn}).encode())  # noqa: S310 - loopback
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
                said.append(json.load(answer)["text"])

    assert len({*said}) == 2
