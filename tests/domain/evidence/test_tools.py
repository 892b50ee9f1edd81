from __future__ import annotations

from collections.abc import Iterable

import pytest

from qa_worker.domain.call import Agent, Expected, ToolSpec
from qa_worker.domain.evidence import tools
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.outcomes import tried
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

OK = returns({"status": "success"})
BAD = returns({"status": "error", "message": "not found"})
NOBODY = Agent("a1")


def repeated(*turns: Turn) -> list[int | None]:
    transcript = talk(*turns)
    return turn_numbers(tools.repeated(tried(transcript.tool_uses()), transcript))


def claimed(*turns: Turn) -> list[Fact]:
    transcript = talk(*turns)
    return list(tools.claimed(tried(transcript.tool_uses()), transcript))


def malformed(transcript: Transcript, by: Agent = NOBODY) -> list[Fact]:
    return list(tools.malformed(tried(transcript.tool_uses()), by))


def turn_numbers(facts: Iterable[Fact]) -> list[int | None]:
    return [fact.turn for fact in facts]


# ------------------------------------------------------------------ repeated


def test_the_same_call_again_is_a_repeat() -> None:
    transcript = talk(calls("find", code="A1", n=2), OK, calls("find", n=2, code=" a1", page=None), OK)
    (fact,) = tools.repeated(tried(transcript.tool_uses()), transcript)
    assert (fact.check, fact.turn, fact.subject) == (Check.REPEATED_TOOL_CALL, 2, "find")
    assert fact.quote == 'find({"n":2,"code":" a1","page":null})'
    assert "turn 0" in fact.detail


def test_every_further_repeat_is_a_fact() -> None:
    assert repeated(calls("find"), OK, calls("find"), OK, calls("find"), OK) == [2, 4]


@pytest.mark.parametrize(
    "other", [calls("find", code="A2"), calls("find"), calls("look", code="A1"), calls("find", code=["A1"])]
)
def test_another_tool_or_argument_is_no_repeat(other: Turn) -> None:
    assert not repeated(calls("find", code="A1"), OK, other, OK)


def test_a_change_in_between_excuses_no_second_reading() -> None:
    assert repeated(calls("find"), OK, calls("cancel"), OK, calls("find"), OK) == [4]


def test_one_retry_after_a_failure_is_fair_and_a_second_in_a_row_is_not() -> None:
    assert not repeated(calls("find"), BAD, calls("find"), OK)
    assert repeated(calls("find"), BAD, calls("find"), BAD, calls("find"), BAD) == [4]


def test_after_a_failure_the_caller_may_have_it_tried_as_often_as_they_speak() -> None:
    again = (calls("find"), BAD, caller("No, it is A1."))
    assert not repeated(*again, *again, *again, *again)


def test_a_call_after_a_retry_that_worked_is_a_repeat() -> None:
    assert repeated(calls("find"), BAD, calls("find"), OK, calls("find"), OK) == [4]


def test_calls_without_recorded_results_can_be_repeats_too() -> None:
    assert repeated(calls("find", code="A1"), agent("One moment."), calls("find", code="A1")) == [2]


# ----------------------------------------------------------------- malformed


def test_arguments_that_are_no_object_are_malformed() -> None:
    turn = Turn(Role.AGENT, "", tool_calls=(ToolCall("find", {}, malformed='{"code": '),))
    (fact,) = malformed(talk(turn, turn))[:1]
    assert (fact.check, fact.quote) == (Check.MALFORMED_TOOL_CALL, 'find({"code": )')
    assert not repeated(turn, turn)


FIND = Agent("a1", tools=(ToolSpec("find", parameters={"required": ["code", "last_name"]}),))


def test_a_required_argument_left_empty_in_a_failed_call_is_malformed() -> None:
    (fact,) = malformed(talk(calls("find", code="", last_name="Hill"), BAD), FIND)
    assert "code" in fact.detail
    assert "last_name" not in fact.detail


def test_an_absent_argument_needs_the_tools_own_word() -> None:
    assert not malformed(talk(calls("find", code="A1"), BAD), FIND)
    missing = returns({"status": "error", "message": "missing required parameter: last_name"})
    assert malformed(talk(calls("find", code="A1"), missing), FIND)


def test_without_a_schema_only_the_tools_own_word_counts() -> None:
    assert not malformed(talk(calls("find", id="", note=" "), returns("Error: invalid request")))
    assert malformed(talk(calls("find", id="", note=" "), returns("Error: invalid id")))


@pytest.mark.parametrize("required", [None, "code", 5, [5]])
def test_a_schema_that_makes_no_sense_is_ignored(required: object) -> None:
    by = Agent("a1", tools=(ToolSpec("find", parameters={"required": required}),))
    assert not malformed(talk(calls("find", note=""), BAD), by)


def test_a_call_that_the_tool_accepted_is_not_malformed() -> None:
    assert not malformed(talk(calls("find", code=""), OK), FIND)
    assert not malformed(talk(calls("find", code="")), FIND)


# -------------------------------------------------------------------- failed


def test_failed_calls_are_facts_and_others_are_not() -> None:
    transcript = talk(calls("find", code="A1"), BAD, calls("find", code="A2"), OK, calls("find", code="A3"))
    (fact,) = tools.failed(tried(transcript.tool_uses()))
    assert (fact.check, fact.turn, fact.quote) == (Check.FAILED_TOOL_CALL, 0, 'find({"code":"A1"})')
    assert "not found" in fact.detail


# ------------------------------------------------------- claim after failure


@pytest.mark.parametrize(
    "claim",
    [
        "I've issued your credit.",
        "Good news. Your travel credit has been issued!",
        "The credit is now set up.",
        "We have successfully issued a travel credit of fifty dollars.",
        "You're all set!",
        "All done.",
    ],
)
def test_a_success_claimed_after_a_failure_is_a_fact(claim: str) -> None:
    (fact,) = claimed(calls("issue_travel_credit", amount=50), BAD, agent(claim))
    assert (fact.check, fact.turn, fact.subject) == (Check.CLAIM_AFTER_FAILED_TOOL, 2, "issue_travel_credit")
    assert fact.quote in claim


@pytest.mark.parametrize("claim", ["I've booked your table.", "You're all booked for Friday.", "Your table is booked."])
def test_a_tools_name_and_the_claim_may_differ_in_their_endings(claim: str) -> None:
    assert turn_numbers(claimed(calls("create_booking"), BAD, agent(claim))) == [2]


@pytest.mark.parametrize(
    "honest",
    [
        "I'm sorry, the credit could not be issued.",
        "Unfortunately I was unable to issue your credit, so it is not set up.",
        "I tried to issue the credit but it failed.",
        "Once it works, your credit will be issued.",
        "Shall I say that your credit is issued?",
        "I checked your credit.",
        "I need your code for the credit first.",
        "Let me see.",
        "I've cancelled your order.",
        "",
    ],
)
def test_admissions_plans_questions_and_other_matters_are_no_claim(honest: str) -> None:
    assert not claimed(calls("issue_travel_credit", amount=50), BAD, agent(honest))


def test_the_claim_quotes_its_sentence_only() -> None:
    (fact,) = claimed(calls("cancel_order"), BAD, agent("Thanks for waiting. I've cancelled the order. Anything else?"))
    assert fact.quote == "I've cancelled the order."


def test_a_success_before_the_claim_makes_it_true() -> None:
    claim = agent("I've cancelled the order.")
    assert not claimed(calls("cancel_order"), BAD, calls("cancel_order"), OK, claim)
    assert not claimed(calls("cancel_order"), OK, calls("cancel_order"), BAD, claim)


def test_a_claim_before_the_later_success_is_still_a_claim() -> None:
    turns = (calls("cancel_order"), BAD, agent("I've cancelled it, the order is gone."), calls("cancel_order"), OK)
    assert turn_numbers(claimed(*turns)) == [2]


def test_words_of_a_tool_that_succeeded_belong_to_that_tool() -> None:
    turns = (calls("search_flights"), BAD, calls("book_flights"), OK, agent("I've booked your flights."))
    assert not claimed(*turns)


def test_all_set_counts_only_right_after_the_failure() -> None:
    other = (calls("cancel_order"), BAD, calls("send_receipt"), OK, agent("You're all set."))
    later = (calls("cancel_order"), BAD, agent("That didn't work."), caller("Never mind."), agent("You're all set."))
    assert not claimed(*other)
    assert not claimed(*later)


def test_what_the_caller_says_is_no_claim() -> None:
    assert not claimed(calls("cancel_order"), BAD, caller("So the order is cancelled."))


# ------------------------------------------------------ required and forbidden


def test_a_required_tool_that_was_never_called_is_missing() -> None:
    uses = talk(calls("Find", code="A1"), BAD).tool_uses()
    expected = Expected(required_tools=("find", "refund", "refund"))
    (fact,) = tools.missing_required(uses, expected)
    assert (fact.check, fact.turn, fact.subject) == (Check.MISSING_REQUIRED_TOOL, None, "refund")


def test_every_call_of_a_forbidden_tool_is_a_fact() -> None:
    uses = talk(calls("transfer"), OK, calls("find"), OK, calls("Transfer"), OK).tool_uses()
    facts = list(tools.forbidden(uses, Expected(forbidden_tools=("transfer ",))))
    assert turn_numbers(facts) == [0, 4]
    assert {fact.check for fact in facts} == {Check.FORBIDDEN_TOOL}
