from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.call import Agent, ToolSpec
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.identifiers import identifiers, unsaid
from qa_worker.domain.transcript import ToolCall, Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

NOBODY = Agent("a1")


def found(*turns: Turn, by: Agent = NOBODY) -> tuple[Fact, ...]:
    return unsaid(talk(*turns), by)[0]


def test_a_code_that_nobody_said_is_a_fact_with_the_call_as_its_quote() -> None:
    turns = (caller("My code is J L four two C X."), calls("get_booking", code="4L0MKR", last_name="Hill"))
    (fact,) = found(*turns)
    assert (fact.check, fact.turn, fact.subject) == (Check.UNSAID_IDENTIFIER, 1, "get_booking")
    assert fact.quote == 'get_booking({"code":"4L0MKR","last_name":"Hill"})'
    assert "4L0MKR" in fact.detail


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("My code is J L four two C X.", "JL42CX"),
        ("my code is jl42cx", "JL42CX"),
        ("It's X X F six zero H", "XXF6OH"),
        ("Juliet Lima four two Charlie X-ray", "JL42CX"),
        ("order number W one twenty three four five six", "#W123456"),
        ("the order is number 2 3 7 8, 1 5 6", "2378156"),
        ("double five oh one seven", "55017"),
        ("reach me at jo dot ray at mail dot com", "jo.ray@mail.com"),
        ("reach me at four oh seven, five five five, oh one three eight", "+1-407-555-0138"),
        ("zero seven seven zero zero, nine zero zero, one two three", "+447700900123"),
    ],
)
def test_a_code_said_aloud_is_known(said: str, value: str) -> None:
    assert not found(caller(said), calls("find", reference=value))


def test_a_code_may_come_in_pieces_from_turn_to_turn() -> None:
    assert not found(caller("It starts with B five O"), caller("D Z X"), calls("find", code="B5ODZX"))


def test_the_agent_may_have_said_it_even_in_the_turn_that_calls() -> None:
    assert not found(agent("I'll take voucher V 1 2 3 4."), calls("redeem", code="V1234"))
    assert not found(calls("redeem", text="I'll take voucher V 1 2 3 4.", code="V1234"))


def test_what_an_earlier_result_holds_is_known_as_key_or_value() -> None:
    result = returns({"cards": {"card_77012": {}}, "flight": {"id": "FL_SW12_20260610"}})
    assert not found(result, calls("pay", card_id="card_77012"), calls("book", flight_id="FL_SW12_20260610"))


def test_what_only_a_later_turn_holds_is_not_known() -> None:
    assert found(calls("find", code="AB1234"), returns({"code": "AB1234"}))
    assert found(calls("find", code="AB1234"), caller("It is AB1234"))


def test_a_result_spelled_in_words_is_no_source() -> None:
    assert found(returns("one two three four five"), calls("find", account_number="12345"))


def test_what_the_agent_was_given_is_known() -> None:
    by_policy = Agent("a1", instructions="Use desk DESK-9 for refunds.")
    tool = ToolSpec("refund", "Default queue Q1234", {"properties": {"code": {"enum": ["R24H", "R48H"]}}})
    assert not found(calls("refund", desk_id="DESK-9"), by=by_policy)
    assert not found(calls("refund", code="R48H", queue_id="Q1234"), by=Agent("a1", tools=(tool,)))


@pytest.mark.parametrize("value", ["UNKNOWN", "unknown", "PLACEHOLDER", "TBD", "DCAORD", "n0t provided"])
def test_a_placeholder_for_an_identifier_is_a_fact(value: str) -> None:
    assert found(caller("I want to change my flight"), calls("get_booking", confirmation_number=value))


def test_each_identifier_is_reported_once() -> None:
    turns = (calls("find", code="AB1234"), calls("find", code="AB1234"), calls("cancel", code="CD5678"))
    assert [fact.turn for fact in found(*turns)] == [0, 2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("date", "2026-06-10"),
        ("starts_at", "2026-06-10T14:45:00Z"),
        ("booking_no", "2026-06"),
        ("time", "14:45"),
        ("time", "2:45 pm"),
        ("date", "10/06/2026"),
        ("amount", "$278.00"),
        ("price", "278.50"),
        ("discount", "1250%"),
        ("date", "12JUN2026"),
        ("time", "10AM"),
        ("date_of_birth", "19850312"),
        ("amount", "1420"),
        ("amount", 1420),
        ("reason_code", "DAMAGED"),
        ("ticket_type_id", "unknown"),
        ("refund_amount", 1420.5),
        ("passenger_count", 1200),
        ("number_of_nights", 3),
        ("origin", "SEA"),
        ("reason", "24_hour_rule"),
        ("fare_class", "main_cabin"),
        ("waive_change_fee", True),
        ("summary", "Customer has booking ZZ9999 and wants 3 nights"),
        ("address", "863 Lakeview Drive"),
        ("order_id", ""),
        ("order_id", None),
    ],
)
def test_dates_times_amounts_words_and_counts_are_no_identifiers(key: str, value: Any) -> None:
    facts, looked_up = unsaid(talk(caller("Hello"), calls("act", **{key: value})), NOBODY)
    assert not facts
    assert not looked_up


@pytest.mark.parametrize(
    ("key", "value", "paths"),
    [
        ("flight", "SW770", ["flight"]),
        ("orderNumber", 55123, ["orderNumber"]),
        ("item_ids", ["9690244451", "9690244452"], ["item_ids", "item_ids"]),
        ("payer", {"email": "jo@mail.com", "name": "Jo"}, ["email"]),
        ("phone", "407 555 0138", ["phone"]),
        ("key", "0f8fad5b-d9cb-469f-a165-70867728950e", []),
        ("id", "0f8fad5b-d9cb-469f-a165-70867728950e", ["id"]),
    ],
)
def test_what_looks_like_an_identifier(key: str, value: Any, paths: list[str]) -> None:
    assert [path for path, _ in identifiers(ToolCall("act", {key: value}))] == paths


@given(st.from_regex(r"\A[A-Z]{2}[0-9]{5}\Z"), st.data())
def test_one_changed_digit_makes_a_known_code_unknown(code: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(2, 6))
    other = data.draw(st.sampled_from([digit for digit in "123456789" if digit != code[place]]))
    changed = code[:place] + other + code[place + 1 :]
    said = caller(f"The code is {' '.join(code)}, thank you.")
    assert not found(said, calls("find", code=code))
    assert found(said, calls("find", code=changed))
