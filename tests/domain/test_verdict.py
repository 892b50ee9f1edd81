"""From an assessment to a verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding, Source, Verdict
from qa_worker.domain.rubric import Severity
from qa_worker.domain.verdict import could_not_read, decide
from tests.builders import STANDARD, a_finding, a_rubric, a_transcript, an_assessment

NOT_SAID = "nobody ever said this sentence in the call"


def _decide(assessment: Assessment, *established: Finding) -> tuple[Verdict, tuple[str, ...]]:
    evaluation = decide(assessment, rubric=a_rubric(), transcript=a_transcript(), established=established)
    return evaluation.verdict, evaluation.reasons


def test_a_call_without_fault_passes() -> None:
    assert _decide(an_assessment()) == (Verdict.PASS, ())


def test_a_low_score_with_a_quoted_finding_fails() -> None:
    low = an_assessment(a_finding("tool_usage"), level=2)

    assert _decide(low) == (Verdict.FAIL, ("below_threshold",))


def test_a_low_score_that_rests_on_nothing_needs_review() -> None:
    assert _decide(an_assessment(level=2)) == (
        Verdict.NEEDS_REVIEW,
        ("below_threshold", "nothing_supports_failing"),
    )


def test_a_finding_about_a_criterion_without_fault_supports_no_failing() -> None:
    levels: dict[str, int | None] = dict.fromkeys(("intent_completion", "tool_usage", "response_quality"), 1)
    unrelated = an_assessment(a_finding("compliance", Severity.MINOR), levels=levels)

    assert _decide(unrelated)[0] is Verdict.NEEDS_REVIEW


def test_a_critical_compliance_finding_fails_whatever_the_score() -> None:
    critical = an_assessment(a_finding("compliance", Severity.CRITICAL))

    assert _decide(critical) == (Verdict.FAIL, ("critical:compliance",))


def test_a_critical_finding_elsewhere_is_no_hard_failure() -> None:
    assert _decide(an_assessment(a_finding("tool_usage", Severity.CRITICAL)))[0] is Verdict.PASS


def test_a_finding_that_quotes_what_nobody_said_is_dropped_and_counted() -> None:
    invented = an_assessment(a_finding("compliance", Severity.MAJOR, quote=NOT_SAID))

    evaluation = decide(invented, rubric=a_rubric(), transcript=a_transcript())

    assert (evaluation.verdict, evaluation.findings, evaluation.dropped_quotes) == (Verdict.PASS, (), 1)


def test_a_quote_of_another_turn_is_put_right() -> None:
    misplaced = replace(a_finding(), turn=0)

    evaluation = decide(an_assessment(misplaced), rubric=a_rubric(), transcript=a_transcript())

    assert [finding.turn for finding in evaluation.findings] == [2]


def test_what_a_check_has_proven_needs_no_quote() -> None:
    proven = Finding("compliance", Severity.CRITICAL, "A phrase is missing.", source=Source.EVIDENCE, check="x")

    assert _decide(an_assessment(), proven) == (Verdict.FAIL, ("critical:compliance",))


def test_a_criterion_that_was_not_measured_is_no_pass() -> None:
    assert _decide(an_assessment(levels={"compliance": None})) == (
        Verdict.NEEDS_REVIEW,
        ("not_measured:compliance",),
    )


def test_a_criterion_that_the_judge_left_out_is_no_pass() -> None:
    some = Assessment(levels=(CriterionLevel("compliance", 5),))

    assert _decide(some)[0] is Verdict.NEEDS_REVIEW


def test_a_criterion_that_does_not_apply_leaves_the_average() -> None:
    levels = (*an_assessment(level=4).levels[1:], CriterionLevel("intent_completion", 1, applicable=False))

    evaluation = decide(Assessment(levels), rubric=a_rubric(), transcript=a_transcript())

    assert (evaluation.verdict, evaluation.overall) == (Verdict.PASS, 75)


def test_nothing_that_applies_is_nothing_measured() -> None:
    none = Assessment(tuple(CriterionLevel(name, None, applicable=False) for name in STANDARD))

    assert _decide(none) == (Verdict.NEEDS_REVIEW, ("not_applicable:compliance", "too_little_measured"))


def test_a_criterion_that_can_fail_a_call_by_itself_always_applies() -> None:
    levels = (*an_assessment().levels[:2], CriterionLevel("compliance", None, applicable=False))
    assessment = Assessment((*levels, CriterionLevel("response_quality", 5)))

    assert _decide(assessment) == (Verdict.NEEDS_REVIEW, ("not_applicable:compliance",))


def test_less_than_half_of_the_weight_is_too_little_for_a_pass() -> None:
    levels = [CriterionLevel(name, None, applicable=False) for name in STANDARD if name != "compliance"]

    assert _decide(Assessment((*levels, CriterionLevel("compliance", 5)))) == (
        Verdict.NEEDS_REVIEW,
        ("too_little_measured",),
    )


def test_a_critical_finding_whose_quote_nobody_said_is_neither_proof_nor_a_pass() -> None:
    invented = an_assessment(a_finding("compliance", Severity.CRITICAL, quote=NOT_SAID))

    assert _decide(invented) == (Verdict.NEEDS_REVIEW, ("critical_unquoted:compliance",))


def test_a_proven_critical_breach_fails_in_any_criterion() -> None:
    proven = Finding("intent_completion", Severity.CRITICAL, "Never called.", source=Source.EVIDENCE, check="x")
    levels: dict[str, int | None] = {"intent_completion": 1}

    assert _decide(an_assessment(levels=levels), proven) == (Verdict.FAIL, ("proven:intent_completion",))


def test_a_criterion_under_its_minimum_fails_the_call() -> None:
    rubric = a_rubric(minimum=50)
    low = an_assessment(a_finding("tool_usage"), levels={"tool_usage": 2})

    evaluation = decide(low, rubric=rubric, transcript=a_transcript())

    assert (evaluation.verdict, evaluation.reasons) == (Verdict.FAIL, ("below_minimum:tool_usage",))


def test_an_answer_that_could_not_be_read_needs_review_and_has_no_score() -> None:
    evaluation = could_not_read(rubric=a_rubric(), code="max_tokens")

    assert (evaluation.verdict, evaluation.overall) == (Verdict.NEEDS_REVIEW, None)
    assert {score.score for score in evaluation.scores} == {None}


@pytest.mark.parametrize(("level", "overall"), [(1, 0), (2, 25), (3, 50), (4, 75), (5, 100)])
def test_levels_are_shown_as_0_to_100(level: int, overall: int) -> None:
    evaluation = decide(an_assessment(level=level), rubric=a_rubric(), transcript=a_transcript())

    assert evaluation.overall == overall


@given(levels=st.dictionaries(st.sampled_from(STANDARD), st.none() | st.integers(1, 5)), critical=st.booleans())
def test_a_pass_was_always_measured(levels: dict[str, int | None], critical: bool) -> None:  # noqa: FBT001
    findings = (a_finding("compliance", Severity.CRITICAL),) if critical else ()
    assessment = Assessment(tuple(CriterionLevel(name, level) for name, level in levels.items()), findings)

    evaluation = decide(assessment, rubric=a_rubric(), transcript=a_transcript())

    if evaluation.verdict is Verdict.PASS:
        assert all(score.score is not None for score in evaluation.scores)
        assert evaluation.overall is not None
        assert evaluation.overall >= 70
        assert not critical
