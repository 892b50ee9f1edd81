from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.folding import contains, words


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("I’m  sorry—no.", "im sorry no"),
        ("I'm sorry, NO", "im sorry no"),
        ("“Quoted”\n\ttext…", "quoted text"),
        ('{"confirmation_number": "B5ODZX"}', "confirmation number b5odzx"),
        ("ＦＵＬＬ ｗｉｄｔｈ", "full width"),
        ("Straße", "strasse"),
        ("don`t 'quote' me", "dont quote me"),
        ("...", ""),
        ("", ""),
    ],
)
def test_only_the_words_of_a_text_stay(text: str, folded: str) -> None:
    assert words(text) == folded


@given(st.text(st.sampled_from("abcXYZ019 ,.-_’'\"“”…—\n")))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert words(words(text)) == words(text)


def test_a_phrase_is_found_as_whole_words_only() -> None:
    assert contains("the call is recorded", "call is")
    assert not contains("we recalled the island", "call is")
    assert contains("call", "call")


def test_an_empty_phrase_occurs_nowhere() -> None:
    assert not contains("anything", "")
