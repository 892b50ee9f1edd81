from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evidence.excerpts import LONGEST, cut, of_call, sentences
from qa_worker.domain.transcript import ToolCall


def test_a_call_is_quoted_with_compact_arguments() -> None:
    assert of_call(ToolCall("book", {"to": "Zürich", "bags": 2})) == 'book({"to":"Zürich","bags":2})'


def test_a_malformed_call_is_quoted_as_it_came() -> None:
    assert of_call(ToolCall("book", {}, malformed='{"to": ')) == 'book({"to": )'


def test_quotes_are_cut_to_three_hundred_characters() -> None:
    assert len(of_call(ToolCall("note", {"text": "x" * 1000}))) == LONGEST == 300


def test_sentences_are_parted_at_their_ends_and_at_line_ends() -> None:
    assert list(sentences("Hi there. It is 3.5 miles!\n\nReally?  Yes")) == [
        "Hi there.",
        "It is 3.5 miles!",
        "Really?",
        "Yes",
    ]


@given(st.text())
def test_every_sentence_and_every_cut_is_an_excerpt(text: str) -> None:
    assert cut(text) in text
    assert all(sentence in text for sentence in sentences(text))
