from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from qa_worker.adapters.reports.json_report import comparison_json, suite_json
from qa_worker.domain.comparison import compare
from qa_worker.domain.run import Completion, RunState
from qa_worker.domain.suite import SuiteResult
from tests.builders import a_finding
from tests.suites import a_run, a_suite

NOON = datetime(2026, 11, 4, 12, tzinfo=UTC)


def read(suite: SuiteResult) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(suite_json(suite))
    return document


def test_every_rate_has_its_denominator_and_interval_and_what_was_not_measured_is_counted() -> None:
    document = read(a_suite({"plain": [True, True, False, RunState.ERROR]}))

    assert document["schema"] == "voicenoob-qa/suite-report/1"
    assert document["pass_rate"] == {
        "value": 0.666667,
        "passed": 2,
        "measured": 3,
        "interval_95": [0.20766, 0.938508],
    }
    assert (document["states"]["passed"], document["states"]["error"], document["exit_code"]) == (2, 1, 1)
    assert [p["value"] for p in document["pass_hat"]] == [0.666667, 0.333333, 0.0]
    assert (document["scenarios"][0]["flaky"], document["scenarios"][0]["not_measured"]) == (True, 1)


def test_nothing_measured_is_null_and_not_zero() -> None:
    document = read(a_suite({"plain": [RunState.CANCELLED]}))

    assert (document["pass_rate"]["value"], document["pass_rate"]["measured"]) == (None, 0)
    assert (document["pass_hat"], document["exit_code"]) == ([], 3)


def test_a_run_is_told_in_full() -> None:
    run = a_run(
        "a",
        RunState.FAILED,
        completion=Completion.TIMEOUT,
        turns=7,
        overall=40,
        findings=(a_finding(),),
        started_at=NOON,
        cost_micro_usd=12_500,
    )

    (scenario,) = read(a_suite(extra=[run]))["scenarios"]

    told = scenario["runs"][0]
    assert (told["state"], told["completion"], told["turns"], told["overall"]) == ("failed", "timeout", 7, 40)
    assert (told["started_at"], told["completed_at"], told["cost_usd"]) == ("2026-11-04T12:00:00+00:00", None, 0.0125)
    assert told["findings"][0]["criterion"] == "compliance"


def test_a_comparison_gives_verdict_figures_and_sentences() -> None:
    before = a_suite({f"s{n}": [True] for n in range(24)} | {"gone": [True]})
    now = a_suite({f"s{n}": [n > 6] for n in range(24)}, version="2")

    document = json.loads(comparison_json(compare(before, now)))

    assert (document["verdict"], document["exit_code"]) == ("regressed", 1)
    assert document["pairs"] == {"n": 24, "worse": 7, "better": 0}
    assert document["mcnemar_exact_p"] == 0.015625
    assert document["not_compared"] == [{"scenario": "gone", "reason": "only in the old result"}]
    assert document["scenarios"][0]["now"]["passed"] == 0
    assert document["text"][0].startswith("REGRESSED")


def test_faults_of_the_test_are_told_apart_from_what_was_found() -> None:
    run = a_run("a", RunState.PASSED, test_faults=("[sighs] is not a marker",))

    document = read(a_suite(extra=[run]))

    assert document["test_faults"] == 1
    assert document["scenarios"][0]["runs"][0]["test_faults"] == ["[sighs] is not a marker"]
    assert document["scenarios"][0]["runs"][0]["findings"] == []
