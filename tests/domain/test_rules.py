"""The judge without a model: what it measures, what it can't, and how much each fact costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain import rules
from qa_worker.domain.evaluation import Assessment, CriterionLevel, Source, Verdict
from qa_worker.domain.evidence.facts import Check, Evidence, Fact
from qa_worker.domain.rubric import Checks, PhraseRule, Rubric, Severity
from qa_worker.domain.verdict import decide
from tests.builders import STANDARD, a_rubric, a_transcript

EVERY = frozenset(Check)


def _levels(*facts: Fact, applied: frozenset[Check] = EVERY, has_tools: bool = True) -> dict[str, CriterionLevel]:
    assessment = rules.assess(Evidence(facts, applied), rubric=a_rubric(), has_tools=has_tools)
    return {level.criterion: level for level in assessment.levels}


def test_a_call_in_which_every_check_looked_and_found_nothing_is_perfect() -> None:
    assert {name: level.level for name, level in _levels().items()} == dict.fromkeys(STANDARD, 5)


@pytest.mark.parametrize("check", list(Check))
def test_every_check_costs_levels_in_one_criterion(check: Check) -> None:
    levels = _levels(Fact(check, "detail", subject="move_booking"))

    lowered = [name for name, level in levels.items() if level.level is not None and level.level < 5]
    assert len(lowered) == 1


def test_a_malformed_tool_call_costs_two_levels_whichever_tool_it_was() -> None:
    for subject in ("", "move_booking"):
        levels = _levels(Fact(Check.MALFORMED_TOOL_CALL, "detail", subject=subject))

        assert levels["tool_usage"].level == 3


def test_the_same_small_fault_over_and_over_costs_two_levels_at_most() -> None:
    slow = Fact(Check.SLOW_RESPONSE, "detail", turn=3)

    assert _levels(slow, slow, slow, slow)["response_quality"].level == 3


def test_what_nothing_could_measure_has_no_level() -> None:
    levels = _levels(applied=frozenset({Check.AGENT_LOOP}))

    assert {name: level.level for name, level in levels.items()} == {
        "intent_completion": None,
        "tool_usage": None,
        "compliance": None,
        "response_quality": 5,
    }


def test_a_fault_measures_its_criterion_even_where_nothing_else_could() -> None:
    levels = _levels(Fact(Check.ABRUPT_END, "detail"), applied=frozenset({Check.ABRUPT_END}))

    assert levels["intent_completion"].level == 2


def test_without_tools_the_use_of_tools_does_not_apply() -> None:
    assert not _levels(has_tools=False)["tool_usage"].applicable


def test_a_rubrics_own_phrase_weighs_what_the_rubric_says() -> None:
    rule = PhraseRule("guaranteed", "response_quality", Severity.MINOR)
    rubric = Rubric("r", a_rubric().criteria, checks=Checks(forbidden_phrases=(rule,)))
    said = Fact(Check.FORBIDDEN_PHRASE, "detail", turn=1, quote="guaranteed", subject="guaranteed")

    (finding,) = rules.established(Evidence((said,), EVERY), rubric=rubric)
    levels = {
        level.criterion: level.level
        for level in rules.assess(Evidence((said,), EVERY), rubric=rubric, has_tools=True).levels
    }

    assert (finding.criterion, finding.severity, finding.source) == (
        "response_quality",
        Severity.MINOR,
        Source.EVIDENCE,
    )
    assert levels["response_quality"] == 4
    assert levels["compliance"] == 5


def test_a_rubric_without_the_standard_criterion_does_not_lose_the_fact() -> None:
    rubric = a_rubric("empathy")
    broken = Evidence((Fact(Check.FORBIDDEN_TOOL, "detail", turn=1),), EVERY)

    assessment = rules.assess(broken, rubric=rubric, has_tools=True)

    assert [finding.criterion for finding in assessment.findings] == ["empathy"]
    assert assessment.levels[0].level == 1


def test_a_criterion_that_only_a_model_can_judge_is_not_measured() -> None:
    evaluation = decide(
        rules.assess(Evidence((), EVERY), rubric=a_rubric("empathy"), has_tools=True),
        rubric=a_rubric("empathy"),
        transcript=a_transcript(),
    )

    assert evaluation.verdict is Verdict.NEEDS_REVIEW


def test_only_breaches_of_what_was_configured_hold_for_every_judge() -> None:
    everything = Evidence(tuple(Fact(check, "detail") for check in Check), EVERY)

    assert {finding.check for finding in rules.established(everything, rubric=a_rubric())} == {
        "missing_required_tool",
        "forbidden_tool",
        "missing_required_phrase",
        "forbidden_phrase",
    }


@given(checks=st.lists(st.sampled_from(Check), max_size=30), applied=st.sets(st.sampled_from(Check)))
def test_a_level_is_one_of_the_five_and_more_facts_never_raise_it(checks: list[Check], applied: set[Check]) -> None:
    facts = tuple(Fact(check, "detail") for check in checks)

    fewer, more = _levels(*facts[:-1], applied=frozenset(applied)), _levels(*facts, applied=frozenset(applied))

    for name in STANDARD:
        before, after = fewer[name].level, more[name].level
        assert after is None or 1 <= after <= 5
        assert before is None or (after is not None and after <= before)


def test_a_proven_breach_applies_whatever_the_model_says() -> None:
    """A transcript may talk a model into "not applicable"; it can't talk a check out of what it has found."""
    missing = Evidence((Fact(Check.MISSING_REQUIRED_PHRASE, "never said", subject=""),), EVERY)
    model = Assessment((CriterionLevel("compliance", None, applicable=False), CriterionLevel("tool_usage", 5)))

    bounded = rules.capped(model, missing, rubric=a_rubric())

    assert [(level.criterion, level.applicable, level.level) for level in bounded.levels] == [
        ("compliance", True, 2),
        ("tool_usage", True, 5),
    ]
