from __future__ import annotations

import pytest

from qa_worker.domain.call import Agent, Expected
from qa_worker.domain.evaluation import Source, Verdict
from qa_worker.domain.evidence.collect import collect
from qa_worker.domain.evidence.facts import Check, Evidence
from qa_worker.domain.expectations import Breach, Unmet, capped, check, filled, findings, goal_reached, of_run
from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.rubric import Checks, Severity
from qa_worker.domain.run import NOT_GRADED, Completion
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Told, ToolRule
from qa_worker.domain.transcript import Transcript, Turn
from qa_worker.domain.verdict import decide
from tests.builders import a_rubric, an_assessment
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

FOUR_ON_SATURDAY = ToolRule(
    "create_booking",
    (ArgumentRule("guests", Match.EQUALS, 4), ArgumentRule("date", Match.EQUALS, "2026-11-07")),
)


def missed(*turns: Turn, expected: ExpectedOutcome) -> tuple[Unmet, ...]:
    return check(talk(*turns), expected)


def test_one_call_that_meets_all_rules_is_enough() -> None:
    expected = ExpectedOutcome(required=(FOUR_ON_SATURDAY,))
    wrong, right = (calls("create_booking", guests=n, date="2026-11-07") for n in (5, 4))

    assert not missed(wrong, right, expected=expected)
    assert not missed(calls("CREATE_BOOKING", guests="4", date="2026-11-07"), expected=expected)


def test_the_call_that_comes_nearest_is_shown_with_what_is_wrong_of_it() -> None:
    far = calls("create_booking", guests=2, date="2026-11-09")
    near = calls("create_booking", guests=4, date="2026-11-09")

    (miss,) = missed(far, near, far, expected=ExpectedOutcome(required=(FOUR_ON_SATURDAY,)))

    assert miss == Unmet(
        Breach.WRONG_ARGUMENTS,
        'no call of create_booking had date = "2026-11-07"',
        1,
        'create_booking({"guests":4,"date":"2026-11-09"})',
    )


def test_a_call_that_was_never_made_is_left_to_the_check_of_required_tools() -> None:
    assert not missed(caller("Hello"), expected=ExpectedOutcome(required=(FOUR_ON_SATURDAY,)))


def test_forbidden_arguments_are_found_in_every_call_and_others_are_fine() -> None:
    too_much = ToolRule("apply_credit", (ArgumentRule("amount_eur", Match.AT_LEAST, 10.01),))
    turns = (calls("apply_credit", amount_eur=10), calls("apply_credit", amount_eur=50))

    (miss,) = missed(*turns, expected=ExpectedOutcome(forbidden=(too_much,)))

    assert (miss.breach, miss.turn) == (Breach.FORBIDDEN_ARGUMENTS, 1)
    assert miss.detail == "apply_credit must not be called with amount_eur at least 10.01"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("HT-4821", "Your reference is H T, four eight two one."),
        ("HT-4821", "Your reference is HT4821."),
        ("ninety euros", "That is ninety euros in all."),
        ("112", "Please call 112 now."),
        ("V-6625", "Visit number V, six six two five."),
    ],
)
def test_a_fact_counts_as_told_as_written_and_as_spelled(form: str, said: str) -> None:
    assert not missed(agent(said), expected=ExpectedOutcome(told=(Told("it", (form,)),)))


def test_a_code_may_be_told_over_several_turns() -> None:
    expected = ExpectedOutcome(told=(Told("it", ("HT-4821",)),))

    assert not missed(agent("H T, four eight"), caller("Yes?"), agent("two one."), expected=expected)


@pytest.mark.parametrize(
    ("form", "turn"),
    [
        ("HT-4821", agent("Your reference is H T, four eight two two.")),
        ("HT-4821", caller("So it's HT-4821?")),
        ("112", agent("That makes 1120 euros.")),
        ("ninety euros", agent("That is ninety.")),
        ("HT-4821", returns({"reference": "HT-4821"})),
    ],
)
def test_a_fact_that_the_agent_did_not_say_is_missed(form: str, turn: Turn) -> None:
    (miss,) = missed(turn, expected=ExpectedOutcome(told=(Told("the number", (form,)),)))

    assert miss.breach is Breach.NOT_TOLD
    assert miss.detail == f"the agent never said the number: {form!r}"


def test_any_one_form_is_enough() -> None:
    assert not missed(
        agent("49 euros."), expected=ExpectedOutcome(told=(Told("fee", ("forty nine euros", "49 euros")),))
    )


def test_an_agent_that_goes_on_with_what_was_cut_off_is_found() -> None:
    turns = (
        agent("Your total is"),
        caller("Stop."),
        calls("look"),
        agent("Forty euros, shall I book it? Anything else?"),
    )

    (miss,) = check(talk(*turns), ExpectedOutcome(), unheard={0: "forty euros, shall I book it?"})

    assert (miss.breach, miss.turn) == (Breach.TALKED_ON, 3)
    assert not check(talk(*turns), ExpectedOutcome(), unheard={0: "and a deposit, shall I book it?"})
    assert not check(talk(*turns[:2]), ExpectedOutcome(), unheard={0: "forty euros, shall I book it?"})


def test_an_expectation_that_is_not_met_fails_the_run_whatever_the_judge_says() -> None:
    rubric = a_rubric()
    misses = (Unmet(Breach.NOT_TOLD, "the agent never said it"),)
    assessment = capped(an_assessment(level=5), misses, rubric=rubric)

    found = findings(misses, rubric=rubric)
    evaluation = decide(assessment, rubric=rubric, transcript=talk(agent("Hello")), established=found)

    assert (found[0].criterion, found[0].severity, found[0].source) == (
        "intent_completion",
        Severity.CRITICAL,
        Source.EVIDENCE,
    )
    assert evaluation.verdict is Verdict.FAIL


def test_talking_on_costs_levels_and_fails_no_run_by_itself() -> None:
    rubric = a_rubric()
    misses = (Unmet(Breach.TALKED_ON, "the agent goes on", 2),)

    assessment = capped(an_assessment(level=5), misses, rubric=rubric)
    evaluation = decide(
        assessment, rubric=rubric, transcript=talk(agent("Hi")), established=findings(misses, rubric=rubric)
    )

    assert {level.criterion: level.level for level in assessment.levels}["response_quality"] == 2
    assert evaluation.verdict is Verdict.PASS


def test_a_rubric_without_the_standard_criterion_does_not_lose_the_finding() -> None:
    rubric = a_rubric("tone")

    assert findings((Unmet(Breach.NOT_TOLD, "x"),), rubric=rubric)[0].criterion == "tone"


def test_what_the_scenario_measures_fills_what_rules_could_not_measure() -> None:
    unmeasured = an_assessment(levels={"intent_completion": None, "tool_usage": None, "compliance": None})
    expected = ExpectedOutcome(told=(Told("it", ("x",)),), forbidden=(FOUR_ON_SATURDAY,))

    levels = {level.criterion: level for level in filled(unmeasured, expected).levels}

    assert (levels["intent_completion"].level, levels["compliance"].level) == (5, 5)
    assert (levels["tool_usage"].level, levels["tool_usage"].applicable) == (None, False)


def test_what_the_scenario_does_not_measure_stays_unmeasured() -> None:
    unmeasured = an_assessment(levels={"intent_completion": None, "tool_usage": None, "compliance": None})
    expected = ExpectedOutcome(call=Expected(required_tools=("find",)))

    assert filled(unmeasured, expected) == unmeasured


@pytest.mark.parametrize(
    ("completion", "answered", "kept"),
    [
        (Completion.AGENT_ENDED, False, {Check.UNANSWERED_CALLER}),
        (Completion.TIMEOUT, False, set()),
        (Completion.CALLER_HUNG_UP, False, set()),
        (Completion.MAX_TURNS, False, set()),
        # it had the floor, and said nothing
        (Completion.TIMEOUT, True, {Check.UNANSWERED_CALLER}),
        (Completion.MAX_TURNS, True, {Check.UNANSWERED_CALLER}),
    ],
)
def test_the_agent_is_not_blamed_for_where_others_stopped(
    completion: Completion,
    answered: bool,  # noqa: FBT001 - what is varied
    kept: set[Check],
) -> None:
    talked = talk(agent("Hello, what can I do?"), caller("I want my money back."))
    evidence = collect(talked, agent=Agent("a"), expected=Expected(), checks=Checks())

    found = of_run(evidence, completion, answered=answered)

    assert {fact.check for fact in found.facts} == kept
    assert kept <= found.applied
    assert (Check.ABRUPT_END in found.applied) is (completion is Completion.AGENT_ENDED)


@pytest.mark.parametrize("completion", sorted(set(Completion) - NOT_GRADED))
def test_the_judge_is_told_how_every_graded_run_ended(completion: Completion) -> None:
    (note,) = of_run(Evidence(), completion, answered=True).notes

    assert note.endswith(f"({completion.value})")


def goal(*turns: Turn, ends: Ends) -> bool:
    return goal_reached(Transcript(turns), ends)


def test_agreeing_to_an_action_is_not_its_completion() -> None:
    ends = Ends(tools=("book",), said=("reference",))
    booked = (calls("book"), returns({"status": "ok"}))

    assert not goal(agent("I'll book it, the reference follows."), ends=ends)
    assert not goal(agent("Your reference comes now."), *booked, ends=ends)
    assert not goal(*booked, agent("One moment."), ends=ends)
    assert not goal(calls("book"), returns({"error": "down"}), agent("The reference is X."), ends=ends)
    assert goal(*booked, agent("Your reference is X."), ends=ends)


def test_without_phrases_any_word_after_the_tools_is_enough_and_without_tools_the_phrase() -> None:
    tools = Ends(tools=("find", "book"))
    booked = (calls("book"), returns("{}"))

    assert not goal(*booked, agent("Done."), ends=tools)
    assert goal(*booked, calls("find"), returns("{}"), agent("Done."), ends=tools)
    assert not goal(*booked, calls("find"), returns("{}"), ends=tools)
    assert goal(agent("Call 112."), ends=Ends(said=("112",)))


def test_without_conditions_the_goal_can_not_be_told_from_the_transcript() -> None:
    assert not goal(agent("Goodbye."), ends=Ends(when="You know enough."))
