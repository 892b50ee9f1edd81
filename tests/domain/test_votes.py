"""Several answers made into one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evaluation import Assessment, CriterionLevel, Evaluation, Finding, Source, Verdict
from qa_worker.domain.rubric import Severity
from qa_worker.domain.verdict import decide, overall_score
from qa_worker.domain.votes import is_borderline, majority
from tests.builders import STANDARD, a_finding, a_rubric, a_transcript, an_assessment

CRITICAL = a_finding("compliance", Severity.CRITICAL)
MAJOR = a_finding("compliance", Severity.MAJOR)
NOT_APPLICABLE = CriterionLevel("tool_usage", None, "No tools.", applicable=False)

LEVELS = st.builds(
    lambda criterion, level, applicable: CriterionLevel(
        criterion, level if applicable else None, f"{level}", applicable
    ),
    st.just(""),
    st.none() | st.integers(1, 5),
    st.booleans(),
)
FINDINGS = st.lists(st.builds(a_finding, st.sampled_from(STANDARD), st.sampled_from(Severity)), max_size=4)


@st.composite
def assessments(draw: st.DrawFn) -> Assessment:
    """Any answer about the four standard criteria."""
    levels = tuple(replace(draw(LEVELS), criterion=criterion) for criterion in STANDARD)
    return Assessment(levels, tuple(draw(FINDINGS)), draw(st.text(max_size=3)))


def _tools(level: CriterionLevel) -> Assessment:
    return Assessment((level,), (), f"Level {level.level}.")


def _level(*levels: int | None) -> int | None:
    return majority([_tools(CriterionLevel("tool_usage", level)) for level in levels]).levels[0].level


def _decided(*votes: Assessment) -> Evaluation:
    return decide(majority(votes), rubric=a_rubric(), transcript=a_transcript())


@pytest.mark.parametrize(
    ("threshold", "points", "near"), [(75, 0, True), (70, 5, True), (80, 5, True), (81, 5, False), (69, 5, False)]
)
def test_a_score_is_borderline_up_to_so_many_points_from_the_threshold(
    threshold: int,
    points: int,
    near: bool,  # noqa: FBT001
) -> None:
    """Level 4 everywhere is a score of 75."""
    rubric = a_rubric(threshold=threshold)

    assert is_borderline(an_assessment(level=4), rubric=rubric, points=points) is near


def test_what_was_not_measured_is_not_borderline() -> None:
    nothing = an_assessment(levels=dict.fromkeys(STANDARD))

    assert not is_borderline(nothing, rubric=a_rubric(threshold=0), points=100)


@given(assessment=assessments(), points=st.integers(0, 100))
def test_the_score_that_is_compared_is_the_one_that_is_decided(assessment: Assessment, points: int) -> None:
    rubric = a_rubric()
    decided = decide(assessment, rubric=rubric, transcript=a_transcript()).overall

    assert overall_score(assessment, rubric=rubric) == decided
    assert is_borderline(assessment, rubric=rubric, points=points) == (
        decided is not None and abs(decided - 70) <= points
    )


@pytest.mark.parametrize(
    ("levels", "median"),
    [
        ((2, 5, 4), 4),
        ((1, 1, 5), 1),
        ((5, 3, 4, 1, 4), 4),
        ((2, 4), 2),
        ((2, None, 4), 2),
        ((None, None, 4), None),
        ((None, 4), 4),
        ((None, None, None), None),
    ],
)
def test_a_level_is_the_median_of_the_votes_that_measured_it(
    levels: tuple[int | None, ...], median: int | None
) -> None:
    assert _level(*levels) == median


def test_a_criterion_applies_unless_most_say_it_does_not() -> None:
    measured = _tools(CriterionLevel("tool_usage", 4, "Right tool."))
    without = _tools(NOT_APPLICABLE)

    assert majority([without, measured, without]).levels == (NOT_APPLICABLE,)
    assert majority([without, measured, measured]).levels == (CriterionLevel("tool_usage", 4, "Right tool."),)
    assert majority([without, measured]).levels == (CriterionLevel("tool_usage", 4, "Right tool."),)


def test_a_criterion_that_a_vote_leaves_out_was_not_measured_by_it() -> None:
    silent = Assessment(())
    measured = _tools(CriterionLevel("tool_usage", 4))

    assert majority([silent, silent, measured]).levels == (CriterionLevel("tool_usage", None),)


def test_summary_and_explanations_come_from_the_vote_nearest_to_the_median() -> None:
    far = replace(an_assessment(level=1), summary="far")
    near = replace(an_assessment(level=4, levels={"compliance": 5}), summary="near")
    middle = replace(an_assessment(level=4), summary="middle")

    assert majority([far, near, middle]).summary == "middle"
    explained = [_tools(CriterionLevel("tool_usage", level, f"It was {level}.")) for level in (5, 2, 3)]
    assert majority(explained).levels[0].explanation == "It was 3."


def test_a_vote_that_measured_nothing_is_far_from_one_that_did() -> None:
    votes = [
        replace(an_assessment(level=4, levels={"tool_usage": level}), summary=f"{level}") for level in (None, 2, 2)
    ]

    assert majority(votes).summary == "2"


def test_findings_of_a_criterion_are_kept_where_most_votes_have_some() -> None:
    tools, quality = a_finding("tool_usage"), a_finding("response_quality")

    kept = majority([an_assessment(tools), an_assessment(quality, tools), an_assessment(level=4)]).findings

    assert kept == (tools,)


def test_a_fault_that_every_vote_names_is_listed_once() -> None:
    votes = [an_assessment(replace(MAJOR, explanation=text)) for text in ("one", "two", "three")]

    assert [finding.explanation for finding in majority(votes).findings] == ["one"]


def test_a_critical_finding_of_most_votes_stands() -> None:
    evaluation = _decided(an_assessment(MAJOR), an_assessment(CRITICAL), an_assessment(CRITICAL))

    assert (evaluation.verdict, evaluation.findings) == (Verdict.FAIL, (CRITICAL,))
    assert evaluation.reasons == ("critical:compliance", "median_of:3")


def test_a_critical_finding_of_one_vote_of_three_is_for_a_person_to_look_at() -> None:
    evaluation = _decided(an_assessment(), an_assessment(CRITICAL), an_assessment())

    assert (evaluation.verdict, evaluation.findings) == (Verdict.NEEDS_REVIEW, (MAJOR,))
    assert evaluation.reasons == ("critical_disputed:compliance", "median_of:3")


def test_a_critical_finding_that_others_call_major_is_disputed_and_shown_as_major() -> None:
    critical = replace(CRITICAL, explanation="A real breach.")

    evaluation = _decided(an_assessment(MAJOR), an_assessment(critical), an_assessment(MAJOR))

    assert evaluation.verdict is Verdict.NEEDS_REVIEW
    assert evaluation.findings == (replace(MAJOR, explanation="A real breach."),)


def test_a_minority_calls_something_critical_where_that_fails_no_call() -> None:
    """All of them together wouldn't fail it either: see `test_verdict`."""
    critical = a_finding("tool_usage", Severity.CRITICAL)

    evaluation = _decided(an_assessment(), an_assessment(critical), an_assessment())

    assert (evaluation.verdict, evaluation.reasons) == (Verdict.PASS, ("median_of:3",))
    assert [finding.severity for finding in evaluation.findings] == [Severity.MAJOR]


def test_a_proven_breach_fails_the_call_whatever_is_disputed() -> None:
    proven = Finding("compliance", Severity.CRITICAL, "A phrase is missing.", source=Source.EVIDENCE, check="x")
    votes = majority([an_assessment(), an_assessment(CRITICAL), an_assessment()])

    evaluation = decide(votes, rubric=a_rubric(), transcript=a_transcript(), established=[proven])

    assert evaluation.verdict is Verdict.FAIL


@given(vote=assessments())
def test_one_vote_is_its_own_majority(vote: Assessment) -> None:
    assert majority([vote]) == vote


@given(vote=assessments(), times=st.sampled_from([3, 5]))
def test_votes_that_agree_change_nothing(vote: Assessment, times: int) -> None:
    assert majority([vote] * times) == replace(vote, votes=times)


@given(vote=assessments(), other=assessments())
def test_two_of_three_that_agree_decide(vote: Assessment, other: Assessment) -> None:
    combined = majority([other, vote, vote])

    assert combined.levels == tuple(
        replace(level, explanation=got.explanation) for level, got in zip(vote.levels, combined.levels, strict=True)
    )
    named = {finding.criterion for finding in vote.findings}
    assert {f.criterion for f in combined.findings} <= named | set(combined.disputed)


@given(
    votes=st.lists(assessments(), min_size=1, max_size=5).flatmap(lambda v: st.tuples(st.just(v), st.permutations(v)))
)
def test_the_order_of_the_votes_changes_no_level_and_no_dispute(
    votes: tuple[list[Assessment], list[Assessment]],
) -> None:
    one, other = map(majority, votes)

    assert [(level.level, level.applicable) for level in one.levels] == [
        (level.level, level.applicable) for level in other.levels
    ]
    assert one.disputed == other.disputed


@given(votes=st.lists(assessments(), min_size=1, max_size=5))
def test_a_level_lies_between_those_that_were_given(votes: list[Assessment]) -> None:
    for level in majority(votes).levels:
        measured = [
            given.level for vote in votes for given in vote.levels if given.criterion == level.criterion and given.level
        ]
        assert level.level is None or min(measured) <= level.level <= max(measured)


@given(votes=st.lists(assessments(), min_size=1, max_size=5))
def test_what_any_vote_calls_critical_in_a_hard_criterion_is_no_pass(votes: list[Assessment]) -> None:
    evaluation = _decided(*votes)
    critical = any(CRITICAL in vote.findings for vote in votes)

    assert not (critical and evaluation.verdict is Verdict.PASS)


@given(votes=st.lists(assessments(), min_size=2, max_size=5))
def test_nothing_is_found_that_no_vote_found(votes: list[Assessment]) -> None:
    combined = majority(votes)
    given_ = {finding for vote in votes for finding in vote.findings}

    assert all(f in given_ or replace(f, severity=Severity.CRITICAL) in given_ for f in combined.findings)
    assert len(combined.findings) <= sum(len(vote.findings) for vote in votes)
