from __future__ import annotations

import pytest

from qa_worker.domain.call import Agent, Expected
from qa_worker.domain.evidence.collect import collect
from qa_worker.domain.evidence.facts import Check, Evidence
from qa_worker.domain.quotes import find_quote
from qa_worker.domain.rubric import Checks, PhraseRule
from qa_worker.domain.transcript import Transcript
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

BAD_CALL = talk(
    agent("Hello, I promise to help.", 0.0, 2.0),
    caller("Please cancel my order, the code is B five O D Z X.", 3.0, 6.0),
    calls("find_order", code="B5ODZZ"),
    returns({"status": "error", "message": "not found"}),
    calls("find_order", code="B5ODZX"),
    returns({"status": "success", "order": {"total": 12}}),
    calls("find_order", code="B5ODZX"),
    returns({"status": "success", "order": {"total": 12}}),
    calls("cancel_order", code="B5ODZX"),
    returns({"status": "error", "message": "shipped already"}),
    agent("I've cancelled it for you.", 12.0, 14.0),
    caller("Can you send me a receipt?", 15.0, 17.0),
)
CHECKS = Checks(
    required_phrases=(PhraseRule("this call is recorded", "compliance"),),
    forbidden_phrases=(PhraseRule("I promise", "compliance"),),
)
EXPECTED = Expected(required_tools=("send_receipt",), forbidden_tools=("cancel_order",))


def evidence(transcript: Transcript, expected: Expected | None = None, checks: Checks | None = None) -> Evidence:
    return collect(transcript, agent=Agent("a1"), expected=expected or Expected(), checks=checks or Checks())


def test_everything_wrong_with_a_call_is_found_in_the_order_of_its_turns() -> None:
    found = evidence(BAD_CALL, EXPECTED, CHECKS)
    assert [(fact.check, fact.turn) for fact in found.facts] == [
        (Check.FORBIDDEN_PHRASE, 0),
        (Check.UNSAID_IDENTIFIER, 2),
        (Check.FAILED_TOOL_CALL, 2),
        (Check.REPEATED_TOOL_CALL, 6),
        (Check.FAILED_TOOL_CALL, 8),
        (Check.FORBIDDEN_TOOL, 8),
        (Check.CLAIM_AFTER_FAILED_TOOL, 10),
        (Check.SLOW_RESPONSE, 10),
        (Check.DEAD_AIR, 10),
        (Check.UNANSWERED_CALLER, 11),
        (Check.MISSING_REQUIRED_TOOL, None),
        (Check.MISSING_REQUIRED_PHRASE, None),
    ]
    assert found.applied == frozenset(Check)
    assert found.timing is not None
    assert found.timing.longest_silence_s == 6.0


def test_every_quote_is_really_in_its_turn() -> None:
    for fact in evidence(BAD_CALL, EXPECTED, CHECKS).facts:
        assert (fact.turn is None) == (not fact.quote)
        if fact.turn is not None:
            assert find_quote(BAD_CALL, fact.quote, turn=fact.turn) == fact.turn


def test_a_good_call_has_no_facts() -> None:
    good = talk(
        agent("Hello, this call is recorded.", 0.0, 2.0),
        caller("Where is my order, the code is B five O D Z X?", 3.0, 6.0),
        calls("find_order", code="B5ODZX"),
        returns({"status": "success", "arrives": "2026-06-10"}),
        agent("It arrives on June tenth.", 7.0, 9.0),
        caller("Thanks, bye!", 9.5, 10.0),
    )
    assert not evidence(good, checks=CHECKS).facts


def test_checks_without_anything_to_look_at_are_not_applied() -> None:
    assert evidence(talk()) == Evidence()
    plain = evidence(talk(agent("Hello."), caller("Hi there, bye.")))
    dialogue = {Check.AGENT_LOOP, Check.REPEATED_PROMPT, Check.UNANSWERED_CALLER, Check.ABRUPT_END}
    assert plain == Evidence(applied=frozenset(dialogue))


def test_expectations_apply_even_where_the_agent_did_nothing() -> None:
    found = evidence(talk(caller("Hello?")), EXPECTED, CHECKS)
    assert {Check.MISSING_REQUIRED_TOOL, Check.FORBIDDEN_TOOL} <= found.applied
    assert not {Check.MISSING_REQUIRED_PHRASE, Check.FORBIDDEN_PHRASE, Check.AGENT_LOOP} & found.applied
    assert [fact.check for fact in found.facts] == [Check.UNANSWERED_CALLER, Check.MISSING_REQUIRED_TOOL]


def test_tool_checks_apply_as_far_as_there_is_something_to_check() -> None:
    always = {Check.REPEATED_TOOL_CALL, Check.MALFORMED_TOOL_CALL}
    special = {Check.FAILED_TOOL_CALL, Check.CLAIM_AFTER_FAILED_TOOL, Check.UNSAID_IDENTIFIER}
    unrecorded = evidence(talk(calls("list_orders"))).applied
    assert always <= unrecorded
    assert not special & unrecorded
    failed = evidence(talk(calls("list_orders"), returns("Error: no"))).applied
    assert failed & special == {Check.FAILED_TOOL_CALL, Check.CLAIM_AFTER_FAILED_TOOL}


def test_checks_that_read_english_leave_other_languages_alone() -> None:
    spanish = talk(
        caller("Buenos días, quisiera cambiar mi vuelo del martes, el código es be cinco o de zeta equis"),
        calls("find_booking", code="B5ODZX"),
        returns({"status": "error"}),
        caller("¿Me puede ayudar con el cambio de vuelo del martes al jueves por la mañana?"),
    )
    found = evidence(spanish)
    assert [fact.check for fact in found.facts] == [Check.FAILED_TOOL_CALL]
    assert Check.UNSAID_IDENTIFIER not in found.applied
    assert Check.UNANSWERED_CALLER not in found.applied


def test_arguments_nested_beyond_reason_are_borne() -> None:
    nested: object = "B5ODZX"
    for _ in range(500):
        nested = [nested]
    found = evidence(talk(calls("find", code=nested), returns("ok"), calls("find", code=nested), returns("ok")))
    assert [fact.check for fact in found.facts] == [Check.REPEATED_TOOL_CALL]


@pytest.mark.parametrize(
    "text", ["please " * 20_000, "?" * 100_000, "i just " * 20_000, "..." * 30_000, "one " * 20_000]
)
def test_a_turn_that_never_ends_is_read_in_one_go(text: str) -> None:
    assert evidence(talk(caller(text), agent(text), caller(text))).timing is None
