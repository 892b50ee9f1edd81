from __future__ import annotations

from dataclasses import replace

import pytest

from qa_worker.domain.comparison import Change, Comparison, compare, readable
from qa_worker.domain.run import RunState
from qa_worker.domain.statistics import Rate
from qa_worker.domain.suite import ExitCode, SuiteResult
from tests.suites import a_run, a_suite

GOOD = [True] * 3


def many(count: int, outcomes: list[bool]) -> dict[str, list[bool]]:
    return {f"s{number:02}": outcomes for number in range(count)}


def compared(before: dict[str, list[bool]], now: dict[str, list[bool]]) -> Comparison:
    return compare(a_suite(before, version="1"), a_suite(now, version="2"))


def test_identical_results_show_no_difference() -> None:
    scenarios = many(20, GOOD) | {"flaky": [True, False, True], "broken": [False] * 3}

    result = compared(scenarios, scenarios)

    assert (result.verdict, result.exit_code) == (Change.NO_DIFFERENCE, ExitCode.PASSED)
    assert (result.pairs.worse, result.pairs.better, result.pairs.n) == (0, 0, 66)


def test_scenarios_that_all_get_worse_are_a_regression_and_named() -> None:
    before = many(20, [True])
    broken = {name: [False] for name in list(before)[:6]}

    result = compared(before, before | broken)

    assert (result.verdict, result.exit_code) == (Change.REGRESSED, ExitCode.AGENT_FAILED)
    text = readable(result)
    assert text[0] == "REGRESSED: 1 -> 2"
    assert "6 got worse, 0 better (exact McNemar p = 0.031" in text[1]
    assert [line for line in text if "worse: s0" in line] == list(text[2:8])


def test_one_scenario_that_breaks_is_a_regression_by_itself_even_where_others_get_better() -> None:
    before = many(20, [True] * 8) | {f"weak{n}": [False] * 8 for n in range(3)}
    now = before | {"s07": [False] * 8} | {f"weak{n}": [True] * 8 for n in range(3)}

    result = compared(before, now)

    assert result.pairs.better > result.pairs.worse
    assert result.verdict is Change.REGRESSED
    assert [s.scenario for s in result.scenarios if s.change is Change.REGRESSED] == ["s07"]
    assert any(
        "s07 passed 100% (8 of 8), now 0% (0 of 8)" in line and "shown by itself" in line for line in readable(result)
    )


def test_better_results_are_an_improvement() -> None:
    before = many(10, [True]) | {f"weak{n}": [False] for n in range(7)}

    result = compared(before, {name: [True] for name in before})

    assert (result.verdict, result.exit_code) == (Change.IMPROVED, ExitCode.PASSED)
    assert readable(result)[0] == "IMPROVED: 1 -> 2"


@pytest.mark.parametrize(("count", "verdict"), [(10, Change.TOO_FEW), (21, Change.TOO_FEW), (22, Change.NO_DIFFERENCE)])
def test_few_runs_can_not_rule_out_a_drop_even_if_all_pass(count: int, verdict: Change) -> None:
    scenarios = many(count, [True])

    assert compared(scenarios, scenarios).verdict is verdict


def test_too_few_says_what_could_have_gone_unseen() -> None:
    result = compared(many(10, [True]), many(10, [True]) | {"s03": [False]})

    assert (result.verdict, result.exit_code) == (Change.TOO_FEW, ExitCode.COULD_NOT_TEST)
    assert readable(result)[2] == (
        "A drop of up to 40 points can't be ruled out. Run more scenarios, or each of them more often."
    )


def test_repeats_are_paired_by_their_number_and_only_measured_ones() -> None:
    before = a_suite({"a": [True, RunState.ERROR, True, False]})
    now = a_suite({"a": [False, True, True, RunState.INVALID]})

    result = compare(before, now)

    assert (result.pairs.worse, result.pairs.both_passed, result.pairs.n) == (1, 1, 2)
    assert result.unpaired == 2
    assert (result.scenarios[0].before, result.scenarios[0].now) == (Rate(2, 3), Rate(2, 3))
    assert "2 repeats were measured on one side only" in readable(result)[-1]


def test_what_can_not_be_compared_is_left_out_and_named() -> None:
    before = a_suite(
        {"kept": GOOD, "gone": GOOD, "broken": [RunState.ERROR]},
        extra=[a_run("new-text", RunState.PASSED, scenario_version="x")],
    )
    now = a_suite(
        {"kept": GOOD, "fresh": GOOD, "broken": [True]},
        extra=[a_run("new-text", RunState.FAILED, scenario_version="y")],
    )

    result = compare(before, now)

    assert [scenario.scenario for scenario in result.scenarios] == ["kept"]
    assert dict(result.left_out) == {
        "gone": "only in the old result",
        "fresh": "only in the new result",
        "broken": "nothing was measured on one side",
        "new-text": "the scenario was changed in between",
    }
    assert any("not compared: new-text, the scenario was changed in between" in line for line in readable(result))


ERROR, PENDING = RunState.ERROR, RunState.PENDING


@pytest.mark.parametrize("state", [ERROR, PENDING, RunState.RUNNING, RunState.INVALID, RunState.CANCELLED])
def test_what_was_measured_before_and_is_not_now_could_not_be_tested(state: RunState) -> None:
    before = many(30, GOOD)
    now = many(15, GOOD) | {f"s{number}": [state] * 3 for number in range(15, 30)}

    result = compare(a_suite(before), a_suite(now))

    assert (result.verdict, result.exit_code) == (Change.UNTESTED, ExitCode.COULD_NOT_TEST)
    text = readable(result)
    assert text[0] == "COULD NOT TEST: 1 -> 1"
    assert "15 of 30 scenarios that were measured before were not measured now." in text


def test_a_scenario_that_is_gone_could_not_be_tested() -> None:
    assert compared(many(30, GOOD), many(29, GOOD)).verdict is Change.UNTESTED
    assert compared(many(29, GOOD), many(30, GOOD)).verdict is Change.NO_DIFFERENCE


@pytest.mark.parametrize("sides", [(GOOD, [True, PENDING, PENDING]), ([True, PENDING, PENDING], GOOD)])
def test_a_suite_that_is_not_over_is_no_result(sides: tuple[list[bool | RunState], list[bool | RunState]]) -> None:
    before, now = (a_suite({f"s{number}": side for number in range(30)}) for side in sides)

    result = compare(before, now)

    assert (result.verdict, result.exit_code) == (Change.UNTESTED, ExitCode.COULD_NOT_TEST)
    assert any("suite run is not over" in line for line in readable(result))


def test_a_regression_that_is_shown_stays_one_whatever_could_not_be_tested() -> None:
    now = {f"s{number:02}": [False] for number in range(10)} | {f"s{number}": [PENDING] for number in range(10, 20)}

    assert compare(a_suite(many(20, [True])), a_suite(now)).verdict is Change.REGRESSED


def test_an_improvement_is_not_shown_where_something_could_not_be_tested() -> None:
    before = many(10, [True]) | {f"weak{n}": [False] for n in range(7)}
    now = {name: [True] for name in before} | {"s03": [ERROR]}

    assert compare(a_suite(before), a_suite(now)).verdict is Change.UNTESTED


def graded(judge: str, version: str) -> SuiteResult:
    runs = [
        a_run(f"s{number}", RunState.PASSED, judge=judge, rubric_version=version, caller="some-model")
        for number in range(30)
    ]
    return a_suite(extra=runs)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (graded("rules", "b"), "it was graded by another judge"),
        (graded("claude", "b"), "it was graded by another version of the rubric or its judge's settings"),
    ],
)
def test_verdicts_of_another_judge_or_rubric_are_not_compared(now: SuiteResult, why: str) -> None:
    result = compare(graded("claude", "a"), now)

    assert result.verdict is Change.UNTESTED
    assert {reason for _, reason in result.left_out} == {why}
    assert any("30 of 30 scenarios were judged otherwise" in line for line in readable(result))


def test_other_callers_and_another_kind_of_agent_are_told() -> None:
    before = replace(graded("claude", "a"), target="claude")
    now = replace(before, target="http", runs=tuple(replace(run, caller="another-model") for run in before.runs))

    result = compare(before, now)

    assert result.verdict is Change.NO_DIFFERENCE
    assert result.warnings == (
        "The agent was reached as 'claude' before and as 'http' now.",
        "The callers were played by some-model before and by another-model now, which may explain a difference.",
    )
    assert set(result.warnings) <= set(readable(result))
    assert compare(before, before).warnings == ()


def test_nothing_to_compare_is_too_few() -> None:
    result = compare(a_suite(), a_suite())

    assert (result.verdict, result.pairs.n) == (Change.TOO_FEW, 0)
    assert "Passed nothing before and nothing now" in readable(result)[1]


def test_the_verdict_does_not_depend_on_the_order_of_runs() -> None:
    before, now = a_suite(many(12, GOOD)), a_suite(many(12, [True, False, True]))
    turned = replace(now, runs=now.runs[::-1])

    assert compare(before, turned).verdict is compare(before, now).verdict is Change.REGRESSED
    assert compare(before, turned).pairs == compare(before, now).pairs
