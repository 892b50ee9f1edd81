from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from qa_worker.domain.rubric import Severity
from qa_worker.domain.run import Completion, RunState
from qa_worker.domain.statistics import Rate
from qa_worker.domain.suite import ExitCode, finished, needs_another
from tests.builders import a_finding
from tests.suites import a_run, a_suite

NOON = datetime(2026, 11, 4, 12, tzinfo=UTC)


def test_the_pass_rate_counts_only_what_was_measured() -> None:
    suite = a_suite({"a": [True, False, RunState.ERROR], "b": [True, RunState.CANCELLED]})

    assert suite.rate == Rate(2, 3)
    assert [(s.scenario, s.rate, s.unmeasured, s.flaky) for s in suite.scenarios] == [
        ("a", Rate(1, 2), 1, True),
        ("b", Rate(1, 1), 1, False),
    ]


def test_an_attempt_that_the_caller_spoilt_is_replaced_by_the_next() -> None:
    spoilt = a_run("a", RunState.INVALID, attempt=1)
    suite = a_suite(extra=[a_run("a", RunState.PASSED, attempt=2), spoilt])

    assert (suite.rate, suite.spoilt, suite.exit_code) == (Rate(1, 1), 1, ExitCode.PASSED)


def test_a_repeat_that_stays_invalid_is_not_measured_and_no_failure() -> None:
    suite = a_suite(extra=[a_run("a", RunState.INVALID, attempt=n) for n in (1, 2, 3)])

    assert (suite.rate, suite.spoilt, suite.exit_code) == (Rate(0, 0), 2, ExitCode.COULD_NOT_TEST)


def test_reliability_is_told_for_every_k_that_was_run() -> None:
    suite = a_suite({"a": [True, True, False], "b": [True, True]})

    assert [(found.k, found.scenarios) for found in suite.pass_hat] == [(1, 2), (2, 2), (3, 1)]
    assert [found.value for found in suite.pass_hat] == pytest.approx([5 / 6, 2 / 3, 0.0])


@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ([True, True], ExitCode.PASSED),
        ([True, False], ExitCode.AGENT_FAILED),
        ([False, RunState.ERROR], ExitCode.AGENT_FAILED),
        ([True, RunState.ERROR], ExitCode.COULD_NOT_TEST),
        ([True, RunState.CANCELLED], ExitCode.COULD_NOT_TEST),
        ([True, RunState.RUNNING], ExitCode.COULD_NOT_TEST),
        ([], ExitCode.COULD_NOT_TEST),
    ],
)
def test_the_exit_code_tells_a_bad_agent_from_a_bad_test(runs: list[bool | RunState], code: ExitCode) -> None:
    assert a_suite({"a": runs}).exit_code is code


def test_only_the_callers_fault_is_run_again_and_not_for_ever() -> None:
    invalid = [a_run("a", RunState.INVALID, attempt=n) for n in (2, 1)]

    assert needs_another(invalid[:1], max_attempts=3)
    assert needs_another(invalid, max_attempts=3)
    assert not needs_another(invalid, max_attempts=2)
    assert not needs_another([*invalid, a_run("a", RunState.FAILED, attempt=3)], max_attempts=9)
    assert not needs_another([], max_attempts=3)


def test_a_suite_is_finished_when_no_run_can_go_on() -> None:
    assert finished([a_run("a", RunState.PASSED), a_run("b", RunState.CANCELLED)])
    assert not finished([a_run("a", RunState.PASSED), a_run("b", RunState.RUNNING)])


def test_a_run_says_how_long_it_took_and_why_it_stands_where_it_stands() -> None:
    run = a_run("a", RunState.FAILED, started_at=NOON, completed_at=NOON + timedelta(seconds=2.5))
    finding = a_finding(severity=Severity.CRITICAL)

    assert run.duration_s == 2.5
    assert a_run("a", RunState.PENDING).duration_s is None
    assert a_run("a", RunState.FAILED, findings=(finding, finding)).why == "It was not good.; It was not good."
    assert a_run("a", RunState.ERROR, message="endpoint down", findings=(finding,)).why == "endpoint down"
    assert a_run("a", RunState.PASSED, completion=Completion.GOAL_REACHED).why == "goal_reached"
