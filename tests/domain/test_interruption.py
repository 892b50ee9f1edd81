from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.folding import words
from qa_worker.domain.interruption import CUT_NOTE, Cut, cut, talks_on
from qa_worker.domain.markers import AfterPhrase, AfterWords

TURN = "So, your total is 40 euros – shall I book a well-known table?"


@pytest.mark.parametrize(
    ("at", "heard"),
    [
        (AfterWords(1), "So,"),
        (AfterWords(4), "So, your total is"),
        (AfterWords(7), "So, your total is 40 euros – shall"),
        (AfterPhrase("your total is"), "So, your total is"),
        (AfterPhrase("YOUR TOTAL, is!"), "So, your total is"),
        (AfterPhrase("a well"), "So, your total is 40 euros – shall I book a well-known"),
    ],
)
def test_a_turn_is_cut_behind_the_place(at: AfterWords | AfterPhrase, heard: str) -> None:
    found = cut(TURN, at)

    assert found.interrupts
    assert found.heard == heard
    assert f"{found.heard} {found.unheard}" == TURN


@pytest.mark.parametrize(
    "at", [AfterWords(12), AfterWords(13), AfterPhrase("known table"), AfterPhrase("refund"), AfterPhrase("tot")]
)
def test_a_turn_that_is_over_by_then_is_heard_to_its_end(at: AfterWords | AfterPhrase) -> None:
    assert cut(TURN, at) == Cut(TURN, "")


def test_the_first_place_counts() -> None:
    assert cut("No. Not now. No. Never.", AfterPhrase("no")).heard == "No."


def test_the_history_says_that_the_turn_was_cut_and_only_then() -> None:
    assert cut(TURN, AfterWords(1)).history == f"So, {CUT_NOTE}"
    assert cut(TURN, AfterWords(99)).history == TURN


@given(st.text(max_size=80), st.integers(1, 20))
def test_nothing_is_lost_between_heard_and_unheard(turn: str, count: int) -> None:
    found = cut(turn, AfterWords(count))

    assert words(f"{found.heard} {found.unheard}") == words(turn)


@pytest.mark.parametrize(
    ("unheard", "answer", "goes_on"),
    [
        ("40 euros, shall I book it?", "40 euros, shall I book it?", True),
        ("40 euros, shall I book it?", "40 euros. Shall I do something else?", True),
        ("40 euros", "40 euros.", True),
        ("40 euros, shall I book it?", "Of course. What shall I change?", False),
        ("40 euros, shall I book it?", "It's 40 euros, shall I book it?", False),
        ("please?", "Please, go ahead.", False),
        ("", "Anything.", False),
    ],
)
def test_going_on_with_the_rest_is_talking_on(unheard: str, answer: str, goes_on: bool) -> None:  # noqa: FBT001 - a table
    assert talks_on(unheard, answer) is goes_on


HEARD, REST = "Thank you. Your total", "is forty pounds including tax, and I'll send the receipt."


@pytest.mark.parametrize(
    ("answer", "goes_on"),
    [
        ("Your total is forty pounds including tax.", True),
        ("Thank you. Your total is forty pounds.", True),
        ("As I was saying, is forty pounds including tax.", True),
        ("As I was saying, your total is forty pounds.", True),
        ("Sorry. Is forty pounds including tax.", True),
        ("I'm sorry. So, your total is forty pounds.", True),
        ("Please let me finish. Your total is forty pounds.", True),
        ("Your total changes then. Which day?", False),
        ("Of course. Which day shall I book?", False),
        ("Sorry, of course. Sunday at nine?", False),
    ],
)
def test_saying_it_again_from_the_beginning_is_talking_on_too(answer: str, *, goes_on: bool) -> None:
    assert talks_on(REST, answer, heard=f"{HEARD} {CUT_NOTE}", asked="Make it Sunday instead.") is goes_on


@pytest.mark.parametrize("asked", ["Sorry, go on.", "Pardon?", "Could you say that again?", "Mhm.", "I see."])
def test_who_wants_to_hear_the_rest_gets_it(asked: str) -> None:
    assert not talks_on(REST, "Your total is forty pounds including tax.", heard=HEARD, asked=asked)
    assert not talks_on(REST, REST, heard=HEARD, asked=asked)


def test_to_a_question_the_rest_may_be_the_answer_but_not_all_of_it() -> None:
    asked = "How much is it?"

    assert not talks_on(REST, "Your total is forty pounds including tax.", heard=HEARD, asked=asked)
    assert not talks_on("forty pounds including tax.", "Forty pounds including tax.", heard=HEARD, asked=asked)
    assert talks_on(REST, f"So, {REST}", heard=HEARD, asked="Wait, can I have Sunday?")


def test_a_turn_that_was_cut_between_two_sentences_has_no_sentence_to_begin_again() -> None:
    assert not talks_on("Shall I book it?", "Thank you. Shall we say nine?", heard="Thank you.", asked="At nine.")
