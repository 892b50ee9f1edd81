from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from qa_worker.adapters.reports.junit import junit_xml
from qa_worker.domain.rubric import Severity
from qa_worker.domain.run import Completion, RunState
from qa_worker.domain.suite import SuiteResult
from tests.builders import a_finding
from tests.suites import a_run, a_suite

NOON = datetime(2026, 11, 4, 12, tzinfo=UTC)


def parsed(suite: SuiteResult) -> ET.Element:
    return ET.fromstring(junit_xml(suite))  # noqa: S314 - our own text


def test_every_repeat_is_a_test_case_counted_by_what_became_of_it() -> None:
    root = parsed(
        a_suite({"plain": [True, False], "slow": [RunState.ERROR, RunState.CANCELLED], "odd": [RunState.INVALID]})
    )

    suite = root.find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "1", "2", "1"]
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["5", "1", "2"]
    assert [
        (case.get("classname"), case.get("name"), [child.tag for child in case]) for case in suite.iter("testcase")
    ] == [
        ("booking.plain", "Plain (repeat 1)", []),
        ("booking.plain", "Plain (repeat 2)", ["failure"]),
        ("booking.slow", "Slow (repeat 1)", ["error"]),
        ("booking.slow", "Slow (repeat 2)", ["skipped"]),
        ("booking.odd", "Odd (repeat 1)", ["error"]),
    ]


def test_a_failure_says_what_went_wrong_and_where() -> None:
    run = a_run(
        "plain",
        RunState.FAILED,
        findings=(a_finding(severity=Severity.CRITICAL),),
        completion=Completion.MAX_TURNS,
        turns=20,
        overall=45,
        started_at=NOON,
        completed_at=NOON + timedelta(seconds=61.5),
    )
    root = parsed(SuiteResult("nightly", "booking", "7", (run,), started_at=NOON))

    failure = root.find(".//failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("failed", "It was not good.")
    assert failure.text == (
        "run plain-1-1: max_turns after 20 turns, score 45 of 100\ncritical compliance, turn 2: It was not good."
    )
    assert [element.get("time") for element in root.iter("testcase")] == ["61.500"]
    assert root[0].get("timestamp") == "2026-11-04T12:00:00"


def test_attempts_that_the_caller_spoilt_are_a_property_and_no_test_case() -> None:
    suite = a_suite(
        {"flaky": [True, False]}, extra=[a_run("a", RunState.INVALID), a_run("a", RunState.PASSED, attempt=2)]
    )
    root = parsed(suite)

    properties = {item.get("name"): item.get("value") for item in root.iter("property")}
    assert len(list(root.iter("testcase"))) == 3
    assert properties["attempts_spoilt_by_the_caller"] == "1"
    assert properties["passed_of_measured"] == "2/3"
    assert properties["flaky_scenarios"] == "flaky"


@pytest.mark.parametrize("text", ["a\x00b\x1bc", 'quo"te <tag> & more', "half \ud83d an emoji", "line\nbreak"])
def test_no_text_breaks_the_document(text: str) -> None:
    root = parsed(a_suite(extra=[a_run("a", RunState.ERROR, message=text)]))

    error = root.find(".//error")
    assert error is not None
    assert error.get("type") == "error"
    junit_xml(a_suite(extra=[a_run("a", RunState.ERROR, message=text)])).encode("utf-8")


def test_an_empty_suite_is_a_document_too() -> None:
    assert parsed(a_suite()).get("tests") == "0"
