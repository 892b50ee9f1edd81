"""What matches a rule, and which rules there can't be."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.alert_rule import (
    CONDITIONS,
    OF_EVALUATIONS,
    AlertRule,
    AlertSeverity,
    Event,
    Graded,
    Match,
    RuleKind,
    matching,
    matching_event,
)
from qa_worker.domain.alert_rule_check import checked
from qa_worker.domain.call import workspace_id
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evaluation import CriterionScore, Evaluation, Verdict
from qa_worker.domain.rubric import Severity
from tests.builders import a_finding

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
AGENT = uuid.UUID(int=7)
EVALUATION = uuid.UUID(int=8)


def a_rule(kind: RuleKind = RuleKind.EVALUATION_FAILED, **fields: Any) -> AlertRule:
    """A rule of the workspace `w`."""
    rule = AlertRule(uuid.UUID(int=1), workspace_id("w"), "a rule", kind, AlertSeverity.WARNING)
    return replace(rule, **fields)


def an_evaluation(verdict: Verdict = Verdict.FAIL, overall: int | None = 40, **fields: Any) -> Evaluation:
    """An evaluation with one criterion, `compliance` at 25."""
    scores = (CriterionScore("compliance", 25, 2, applicable=True, weight=1.0),)
    evaluation = Evaluation(verdict, overall, scores, (), ("below_threshold",))
    return replace(evaluation, **fields)


def details(rule: AlertRule, evaluation: Evaluation | None, *, agent: uuid.UUID = AGENT) -> list[str]:
    """Why this rule matches: nothing, or one reason."""
    graded = Graded(EVALUATION, agent, AT, evaluation, "timeout" if evaluation is None else "")
    return [match.detail for match in matching([rule], graded)]


@pytest.mark.parametrize("verdict", Verdict)
def test_only_a_failed_evaluation_matches_evaluation_failed(verdict: Verdict) -> None:
    found = details(a_rule(), an_evaluation(verdict))

    assert found == (["failed: below_threshold"] if verdict is Verdict.FAIL else [])


def test_needs_review_is_a_rule_of_its_own() -> None:
    rule = a_rule(RuleKind.NEEDS_REVIEW)

    assert details(rule, an_evaluation(Verdict.NEEDS_REVIEW)) == ["needs review: below_threshold"]
    assert details(rule, an_evaluation(Verdict.FAIL)) == []


def test_a_call_that_was_given_up_on_is_neither_failed_nor_low() -> None:
    kinds = {kind: details(a_rule(kind, threshold=70), None) for kind in RuleKind}

    assert {kind for kind, found in kinds.items() if found} == {RuleKind.NOT_EVALUATED}
    assert kinds[RuleKind.NOT_EVALUATED] == ["not evaluated: timeout"]


@pytest.mark.parametrize(("overall", "found"), [(69, ["overall 69 is below 70"]), (70, []), (100, []), (None, [])])
def test_a_score_matches_below_the_floor_and_never_above(overall: int | None, found: list[str]) -> None:
    assert details(a_rule(RuleKind.SCORE_BELOW, threshold=70), an_evaluation(overall=overall)) == found


def test_a_floor_for_one_criterion_looks_at_that_criterion_alone() -> None:
    low = a_rule(RuleKind.SCORE_BELOW, threshold=50, criterion="Compliance")
    other = replace(low, criterion="tool_usage")

    assert details(low, an_evaluation(overall=99)) == ["Compliance 25 is below 50"]
    assert details(other, an_evaluation(overall=1)) == []


def test_a_criterion_that_was_not_measured_is_not_low() -> None:
    unmeasured = (CriterionScore("compliance", None, None, applicable=True, weight=1.0),)
    rule = a_rule(RuleKind.SCORE_BELOW, threshold=50, criterion="compliance")

    assert details(rule, an_evaluation(scores=unmeasured)) == []


def test_a_critical_finding_matches_whatever_the_verdict() -> None:
    findings = (a_finding("compliance", Severity.CRITICAL), a_finding("tool_usage", Severity.MAJOR))
    passed = an_evaluation(Verdict.PASS, findings=findings)
    rule = a_rule(RuleKind.CRITICAL_FINDING)

    assert details(rule, passed) == ["critical finding in compliance"]
    assert details(replace(rule, criterion="tool_usage"), passed) == []


def test_a_rule_of_one_agent_leaves_others_alone() -> None:
    rule = a_rule(agent_id=AGENT)

    assert details(rule, an_evaluation()) != []
    assert details(rule, an_evaluation(), agent=uuid.UUID(int=9)) == []


def test_a_rule_that_is_switched_off_matches_nothing() -> None:
    assert details(a_rule(enabled=False), an_evaluation()) == []


def test_a_cause_matches_a_rule_once() -> None:
    graded = Graded(EVALUATION, AGENT, AT, an_evaluation())
    first, second = (matching([a_rule()], graded)[0] for _ in range(2))
    (other,) = matching([a_rule(id=uuid.UUID(int=2))], graded)

    assert first.id == second.id
    assert other.id != first.id
    assert first == Match(
        first.id, uuid.UUID(int=1), AGENT, str(EVALUATION), "failed: below_threshold", AT, EVALUATION, 40
    )


def test_no_words_of_a_call_are_in_a_detail() -> None:
    finding = a_finding("compliance", Severity.CRITICAL, quote="my card is 4111")
    evaluation = an_evaluation(findings=(finding,), summary="The caller said 4111.")
    found = [text for kind in OF_EVALUATIONS for text in details(a_rule(kind, threshold=70), evaluation)]

    assert found
    assert not any("4111" in text for text in found)


def test_an_event_matches_rules_of_its_kind_and_agent() -> None:
    event = Event(RuleKind.RUN_FAILED, "run/1", AGENT, AT, "the run failed")
    rules = [
        a_rule(RuleKind.RUN_FAILED),
        a_rule(RuleKind.SUITE_FAILED, id=uuid.UUID(int=2)),
        a_rule(RuleKind.RUN_FAILED, id=uuid.UUID(int=3), agent_id=uuid.UUID(int=9)),
    ]

    assert [(match.rule_id, match.cause) for match in matching_event(rules, event)] == [(rules[0].id, "run/1")]


GOOD = [
    a_rule(),
    a_rule(RuleKind.SCORE_BELOW, threshold=70, criterion="compliance"),
    a_rule(RuleKind.CRITICAL_FINDING, criterion="compliance", agent_id=AGENT),
    a_rule(RuleKind.FAILURE_RATE, threshold=0.2, window_s=3600, min_samples=20),
    a_rule(RuleKind.FAILURE_RATE, baseline=True, rise=0.2, window_s=3600, min_samples=20),
    a_rule(RuleKind.BUDGET_REACHED, threshold=0.8),
    a_rule(RuleKind.DEAD_LETTERS_GROWING, threshold=5, window_s=600),
    a_rule(RuleKind.DEAD_LETTERS_DEPTH, threshold=1),
    a_rule(RuleKind.DEAD_LETTERS_AGE, threshold=14 * 86_400),
    a_rule(RuleKind.QUEUE_TOO_OLD, threshold=120),
    a_rule(RuleKind.BREAKER_OPEN, cooldown_s=0),
]


@pytest.mark.parametrize("rule", GOOD, ids=lambda rule: str(rule.kind.value))
def test_a_rule_that_says_what_it_must_is_taken(rule: AlertRule) -> None:
    assert checked(rule) is rule


_RATE = {"window_s": 3600, "min_samples": 20}
BAD: list[tuple[str, AlertRule]] = [
    ("name", a_rule(name=" ")),
    ("name", a_rule(name="n" * 101)),
    ("cooldown_s", a_rule(cooldown_s=-1)),
    ("cooldown_s", a_rule(cooldown_s=8 * 86_400)),
    ("threshold", a_rule(threshold=70)),
    ("criterion", a_rule(criterion="compliance")),
    ("window_s", a_rule(RuleKind.QUEUE_TOO_OLD, threshold=9, window_s=60)),
    ("threshold", a_rule(RuleKind.SCORE_BELOW)),
    ("threshold", a_rule(RuleKind.SCORE_BELOW, threshold=0)),
    ("threshold", a_rule(RuleKind.SCORE_BELOW, threshold=101)),
    ("threshold", a_rule(RuleKind.FAILURE_RATE, threshold=20, **_RATE)),
    ("threshold", a_rule(RuleKind.FAILURE_RATE, **_RATE)),
    ("threshold", a_rule(RuleKind.FAILURE_RATE, threshold=0.2, baseline=True, rise=0.2, **_RATE)),
    ("rise", a_rule(RuleKind.FAILURE_RATE, baseline=True, **_RATE)),
    ("rise", a_rule(RuleKind.FAILURE_RATE, threshold=0.2, rise=0.2, **_RATE)),
    ("window_s", a_rule(RuleKind.FAILURE_RATE, threshold=0.2, min_samples=20)),
    ("window_s", a_rule(RuleKind.FAILURE_RATE, threshold=0.2, min_samples=20, window_s=90_000)),
    ("min_samples", a_rule(RuleKind.FAILURE_RATE, threshold=0.2, window_s=3600, min_samples=0)),
    ("agent", a_rule(RuleKind.BREAKER_OPEN, agent_id=AGENT)),
    ("threshold", a_rule(RuleKind.BUDGET_REACHED, threshold=80)),
    ("threshold", a_rule(RuleKind.DEAD_LETTERS_GROWING, window_s=600)),
    ("threshold", a_rule(RuleKind.DEAD_LETTERS_DEPTH)),
    ("threshold", a_rule(RuleKind.DEAD_LETTERS_DEPTH, threshold=0)),
    ("window_s", a_rule(RuleKind.DEAD_LETTERS_DEPTH, threshold=5, window_s=600)),
    ("agent", a_rule(RuleKind.DEAD_LETTERS_AGE, threshold=60, agent_id=AGENT)),
    ("threshold", a_rule(RuleKind.DEAD_LETTERS_AGE, threshold=366 * 86_400)),
    ("threshold", a_rule(RuleKind.QUEUE_TOO_OLD)),
]


@pytest.mark.parametrize(
    ("field", "rule"), BAD, ids=[f"{rule.kind.value}-{field}-{n}" for n, (field, rule) in enumerate(BAD)]
)
def test_a_rule_that_could_never_work_is_refused_with_its_field_and_a_fix(field: str, rule: AlertRule) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked(rule)

    assert refused.value.field == field
    assert refused.value.fix


def test_a_threshold_that_was_meant_upside_down_is_told_so() -> None:
    with pytest.raises(InvalidInput, match="There is no alert for high scores"):
        checked(a_rule(RuleKind.SCORE_BELOW, threshold=0))


@given(
    kind=st.sampled_from(RuleKind),
    threshold=st.none() | st.floats(-10, 200),
    overall=st.none() | st.integers(0, 100),
    verdict=st.sampled_from(Verdict),
)
def test_nothing_unmeasured_and_nothing_above_a_floor_ever_matches(
    kind: RuleKind, threshold: float | None, overall: int | None, verdict: Verdict
) -> None:
    found = details(a_rule(kind, threshold=threshold), an_evaluation(verdict, overall))

    if kind is RuleKind.SCORE_BELOW and found:
        assert overall is not None
        assert threshold is not None
        assert overall < threshold
    if kind in CONDITIONS:
        assert found == []
