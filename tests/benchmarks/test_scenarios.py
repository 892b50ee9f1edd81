"""What the scenario benchmark plays, and what it says of a measurement."""

from __future__ import annotations

from benchmarks.scenarios import Load, _compared, an_agent, scenarios
from qa_worker.domain.markers import parse_line


def test_every_turn_of_every_scenario_has_a_line_and_an_answer_of_its_own() -> None:
    agent = an_agent(turns=20)
    assert agent.script is not None
    for scenario in scenarios(3, turns=20):
        assert len({*scenario.lines}) == 20
        assert scenario.limits.max_turns == 20
        answers = [agent.script.reply([parse_line(line).text for line in scenario.lines[: n + 1]]) for n in range(20)]
        assert len({answer.text for answer in answers}) == 20
        assert agent.script.otherwise not in answers


def test_the_floor_is_the_longest_run_or_all_work_over_the_slots() -> None:
    load = Load(runs=100, turns=20, latency_s=0.5)

    by_work = _compared(load, 20.0, alone_s=10.0, longest_s=11.0, slots=50)
    by_run = _compared(load, 12.0, alone_s=10.0, longest_s=11.0, slots=200)

    assert (by_work["floor_s"], by_work["times_floor"], by_work["times_faster"]) == (20.0, 1.0, 50.0)
    assert (by_run["floor_s"], by_run["waves_floor_s"], by_run["times_faster"]) == (11.0, 10.0, 83.3)
