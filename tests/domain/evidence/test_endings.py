from __future__ import annotations

import pytest

from qa_worker.domain.evidence.endings import abrupt_end, unanswered
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.speech import speech_of
from qa_worker.domain.transcript import Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

HELLO = agent("Hello. How can I help you?")


def open_end(*turns: Turn) -> list[Fact]:
    transcript = talk(*turns)
    return list(unanswered(transcript, speech_of(transcript)))


def abrupt(*turns: Turn) -> list[Fact]:
    transcript = talk(*turns)
    return list(abrupt_end(transcript, speech_of(transcript), transcript.tool_uses()))


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("I want to cancel my order.", "I want to cancel my order."),
        ("Okay. Can you cancel it? Thanks.", "Can you cancel it?"),
        ("Thanks for that. Please transfer me to a person.", "Please transfer me to a person."),
        ("My code is B 5 O.", "My code is B 5 O."),
        ("No, that is the wrong order.", "No, that is the wrong order."),
        ("No further changes. Please send me the receipt.", "Please send me the receipt."),
    ],
)
def test_a_caller_left_with_a_request_is_a_fact(text: str, quote: str) -> None:
    (fact,) = open_end(HELLO, caller(text))
    assert (fact.check, fact.turn, fact.quote) == (Check.UNANSWERED_CALLER, 1, quote)


@pytest.mark.parametrize(
    "text",
    [
        "Thanks, bye!",
        "No, that's all.",
        "That’s all I needed. I appreciate your help.",
        "Perfect.",
        "Okay great.",
        "No.",
        "I'll watch for the email.",
        "Sounds good to me.",
        "What a day! Anyway, goodbye.",
        "Could be better, couldn't it? Have a good day.",
        "I'm all set. This really helps my studies.",
        "...",
    ],
)
def test_goodbyes_thanks_and_nods_want_no_answer(text: str) -> None:
    assert not open_end(HELLO, caller(text))


def test_a_yes_wants_an_answer_only_after_a_question() -> None:
    assert open_end(agent("Shall I cancel the order?"), caller("Yes please."))
    assert not open_end(agent("So your order arrives on Monday."), caller("Yes."))
    assert not open_end(agent("Was that everything, or is there anything else?"), caller("Yes."))


def test_a_caller_who_got_an_answer_or_was_handed_over_is_not_left_alone() -> None:
    ask = caller("Can I speak to a person?")
    assert not open_end(HELLO, ask, agent("Sure."))
    assert not open_end(HELLO, ask, calls("transfer_to_agent"), returns("ok"))
    assert open_end(HELLO, ask, calls("find_person"), returns("ok"))


def test_without_speech_nobody_waits() -> None:
    assert not open_end()
    assert not open_end(agent("Hello?"))


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("Thanks. Which of the two would you like?", "Which of the two would you like?"),
        ("Got it. One moment, please.", "One moment, please."),
        ("Okay. I'm going to look that up now.", "I'm going to look that up now."),
        ("Let me check that for you", "Let me check that for you"),
    ],
)
def test_a_call_that_stops_in_the_middle_is_a_fact(text: str, quote: str) -> None:
    (fact,) = abrupt(caller("I want my order."), agent(text))
    assert (fact.check, fact.turn, fact.quote) == (Check.ABRUPT_END, 1, quote)


@pytest.mark.parametrize(
    "text",
    [
        "Your order arrives on Monday. Goodbye!",
        "Is there anything else I can help you with?",
        "Do you have any other questions?",
        "If you change your mind, let me know and I'll check what is possible.",
        "Please hold while I transfer you to a live agent.",
        "What a day? No: it's all done.",
    ],
)
def test_a_call_that_comes_to_an_end_is_none(text: str) -> None:
    assert not abrupt(caller("I want my order."), agent(text))


def test_a_tool_call_at_the_end_without_a_result_is_a_fact() -> None:
    (fact,) = abrupt(caller("I want my order."), agent("Okay."), calls("find_order", code="A1"))
    assert (fact.turn, fact.quote, fact.subject) == (2, 'find_order({"code":"A1"})', "find_order")


def test_where_no_results_are_recorded_their_absence_says_nothing() -> None:
    done = "I've noted that, goodbye."
    assert not abrupt(caller("Hi."), calls("note", text=done))
    assert abrupt(caller("Hi."), calls("find"), returns("ok"), calls("note", text=done))


def test_a_call_that_was_handed_over_or_hung_up_did_not_stop_in_the_middle() -> None:
    assert not abrupt(agent("Let me check that."), calls("transfer_to_agent"))
    assert not abrupt(agent("Which one?"), calls("end_call"), returns("ok"))


def test_where_the_caller_spoke_last_it_is_not_the_ending_that_is_abrupt() -> None:
    assert not abrupt(agent("Which one?"), caller("The blue one."))
    assert not abrupt()
