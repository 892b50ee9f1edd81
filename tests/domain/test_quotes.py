from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evidence.excerpts import of_call
from qa_worker.domain.quotes import find_quote
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

CALL = talk(
    agent("Hello! How can I help you today?"),
    caller("I’d like to cancel my order — number W 1 2 3, please."),
    calls("cancel_order", order_id="W123", reason="no longer needed", note=None),
    returns({"status": "error", "message": "Order W123 was shipped already"}),
    agent("Sure. I've cancelled your order, and the refund of $42.50 is on its way."),
    caller("Yes."),
    agent("How can I help you today?"),
)


@pytest.mark.parametrize(
    ("quote", "turn"),
    [
        ("I've cancelled your order", 4),
        ("i’ve CANCELLED\n your order", 4),
        ("“cancel my order - number W 1 2 3”", 1),
        ("Sure. ... the refund of $42.50", 4),
        ("cancelled your order, […] on its way", 4),
        ("and the refund of $42.50 is on its w", 4),
        ('cancel_order({"order_id":"W123"', 2),
        ('"order_id": "W123"', 2),
        ('{"note":null,"order_id":"W123","reason":"no longer needed"}', 2),
        ("Order W123 was shipped already", 3),
        ("W123", 2),
    ],
)
def test_what_was_said_called_or_returned_is_found_in_the_claimed_turn(quote: str, turn: int) -> None:
    assert find_quote(CALL, quote, turn=turn) == turn


@pytest.mark.parametrize("turn", [None, 0, 3, 99, -1])
def test_a_wrong_or_missing_turn_is_corrected(turn: int | None) -> None:
    assert find_quote(CALL, "the refund of $42.50", turn=turn) == 4


@pytest.mark.parametrize(("claimed", "found"), [(0, 0), (1, 0), (6, 6), (5, 6), (3, 0), (4, 6), (None, 0)])
def test_of_several_turns_the_nearest_is_taken_and_of_two_the_earlier(claimed: int | None, found: int) -> None:
    assert find_quote(CALL, "How can I help you today?", turn=claimed) == found


@pytest.mark.parametrize(
    "quote",
    [
        "I have cancelled your order",
        "on its way ... Sure",
        "Sure. How can I help",
        "the refund of $43.50",
        "ancelled your order",
    ],
)
def test_what_nobody_said_is_found_nowhere(quote: str) -> None:
    assert find_quote(CALL, quote, turn=4) is None


@pytest.mark.parametrize("quote", ["", "   ", "...", "a", "the", "I", "to", "order", "2"])
def test_a_few_letters_prove_nothing(quote: str) -> None:
    assert find_quote(CALL, quote, turn=1) is None


def test_a_short_turn_can_be_quoted_whole_but_only_where_it_is() -> None:
    assert find_quote(CALL, "yes", turn=5) == 5
    assert find_quote(CALL, "yes", turn=4) is None


def test_malformed_arguments_can_be_quoted() -> None:
    turn = Turn(Role.AGENT, "", tool_calls=(ToolCall("look_up", {}, malformed='{"order": W123'),))
    assert find_quote(talk(turn), 'look_up({"order": W123', turn=0) == 0


def test_scripts_without_blanks_can_be_quoted_from_the_middle() -> None:
    assert find_quote(talk(agent("ご注文の商品は明日お届けの予定です。")), "商品は明日お届けの予定", turn=0) == 0


def test_an_empty_transcript_contains_no_quote() -> None:
    assert find_quote(Transcript(), "anything at all", turn=0) is None


@given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), min_size=1, max_size=4))
def test_a_tool_call_is_found_by_the_quote_that_facts_give_of_it(arguments: dict[str, str]) -> None:
    call = ToolCall("look_up_order", arguments)
    assert find_quote(talk(agent("Hi."), Turn(Role.AGENT, "", tool_calls=(call,))), of_call(call), turn=0) == 1


@given(st.text(min_size=1), st.integers(0, 3))
def test_any_stretch_of_words_of_a_turn_is_found_in_it(text: str, start: int) -> None:
    said = f"{text} well then, let us see about everything {json.dumps(text)}"
    quote = " ".join(said.split()[start:])
    assert find_quote(talk(agent(said)), quote, turn=0) == 0
