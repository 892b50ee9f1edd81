from __future__ import annotations

import pytest

from qa_worker.domain.call import Expected
from qa_worker.domain.evidence import phrases
from qa_worker.domain.evidence.facts import Check
from qa_worker.domain.evidence.speech import Said, speech_of
from qa_worker.domain.rubric import Checks, PhraseRule
from qa_worker.domain.transcript import Turn
from tests.domain.evidence.talk import agent, caller, returns, talk


def heard(*turns: Turn) -> tuple[Said, ...]:
    return speech_of(talk(*turns))


@pytest.mark.parametrize(
    "said",
    [
        "This call is being recorded.",
        "Hello — THIS call, is  being\nrecorded!",
        "Just so you know: “this call is being recorded”",
    ],
)
def test_a_phrase_is_said_whatever_its_case_punctuation_and_spacing(said: str) -> None:
    assert not list(phrases.missing(heard(agent(said)), ["This call is being recorded"]))


def test_a_phrase_that_the_agent_never_says_is_missing() -> None:
    speech = heard(agent("Hello."), caller("This call is being recorded"), returns("This call is being recorded"))
    (fact,) = phrases.missing(speech, ["This call is being recorded."])
    assert (fact.check, fact.turn, fact.quote) == (Check.MISSING_REQUIRED_PHRASE, None, "")
    assert fact.subject == "This call is being recorded."


def test_a_phrase_may_run_on_into_the_agents_next_turn_but_not_past_the_callers() -> None:
    assert not list(phrases.missing(heard(agent("This call"), agent("is recorded.")), ["this call is recorded"]))
    assert list(phrases.missing(heard(agent("This call"), caller("Yes?"), agent("is recorded.")), ["call is recorded"]))


def test_a_part_of_a_word_is_not_the_phrase() -> None:
    assert list(phrases.missing(heard(agent("We recalled the island.")), ["call"]))
    assert not list(phrases.said(heard(agent("That is guaranteeable.")), ["guarantee"]))


def test_each_turn_with_a_forbidden_phrase_is_a_fact_that_quotes_its_sentence() -> None:
    speech = heard(
        agent("Hello. I’d guarantee that, sir! Okay?"),
        caller("You guarantee that?"),
        agent("Sure, I'd guarantee that."),
    )
    facts = list(phrases.said(speech, ["I'd guarantee"]))
    assert [(fact.check, fact.turn) for fact in facts] == [(Check.FORBIDDEN_PHRASE, 0), (Check.FORBIDDEN_PHRASE, 2)]
    assert facts[0].quote == "I’d guarantee that, sir!"
    assert facts[0].subject == "I'd guarantee"


def test_a_phrase_over_two_sentences_is_quoted_from_the_start_of_the_turn() -> None:
    (fact,) = phrases.said(heard(agent("I promise. You win.")), ["promise you win"])
    assert fact.quote == "I promise. You win."


def test_phrases_of_call_and_rubric_come_together_once_in_the_rubrics_spelling() -> None:
    checks = Checks(
        required_phrases=(PhraseRule("Call is recorded.", "compliance"),),
        forbidden_phrases=(PhraseRule("no way", "compliance"), PhraseRule("!?", "compliance")),
    )
    expected = Expected(required_phrases=("call is  recorded", "goodbye"), forbidden_phrases=("NO WAY", ""))
    assert phrases.required(expected, checks) == ("Call is recorded.", "goodbye")
    assert phrases.forbidden(expected, checks) == ("no way",)


def test_our_note_on_a_turn_that_was_cut_is_no_phrase_of_the_agent() -> None:
    (found,) = heard(agent("Your total is [cut off by the caller]"))

    assert (found.text.strip(), found.words) == ("Your total is", "your total is")
