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
