from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.folding import as_ascii, contains, rough, without_apostrophes, words


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


def test_typographic_marks_alone_keep_no_text_from_ascii() -> None:
    assert as_ascii("“I’m sorry” — no…") == " I'm sorry    no "
    assert as_ascii("Straße") is None


ASCII_TEXT = st.text(st.sampled_from("abcXYZ019 ,._'`\n"))


@given(ASCII_TEXT)
def test_ascii_folds_like_any_other_text(text: str) -> None:
    assert words(f"{text} ü") == f"{words(text)} ü".strip()


@given(ASCII_TEXT, st.sampled_from("’‘“”—–‑−…•→≤"), ASCII_TEXT)
def test_typographic_marks_fold_like_any_other_mark(before: str, mark: str, after: str) -> None:
    text = f"{before}{mark}{after}"
    assert words(f"{text} ü") == f"{words(text)} ü".strip()


@given(st.text(st.sampled_from("abcXYZ019 ,._'`’ʼ´üßİ…\u0301\n")))
def test_the_rough_look_misses_no_word(text: str) -> None:
    assert all(without_apostrophes(word) in rough(text) for word in words(text).split())
