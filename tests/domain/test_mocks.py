from __future__ import annotations

import json
from typing import Any

from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.mocks import TIMEOUT_S, Answers, Mock, MockAnswer, ToolMocks
from qa_worker.domain.transcript import ToolCall


def call(tool: str = "book", /, **arguments: Any) -> ToolCall:
    return ToolCall(tool, arguments)


def only(name: str, value: Any) -> tuple[ArgumentRule, ...]:
    return (ArgumentRule(name, Match.EQUALS, value),)


def mocks(*rules: Mock) -> ToolMocks:
    return ToolMocks({"book": rules})


def test_the_first_rule_that_fits_answers() -> None:
    tools = mocks(
        Mock(Answers.RETURNS, {"reference": "A"}, when=only("name", "Hobbs")),
        Mock(Answers.RETURNS, {"reference": "B"}),
    )

    assert json.loads(tools.answer(call(name="hobbs")).text) == {"reference": "A"}
    assert json.loads(tools.answer(call(name="Moss")).text) == {"reference": "B"}


def test_a_tool_fails_is_slow_times_out_or_talks_nonsense() -> None:
    assert mocks(Mock(Answers.FAILS, "full", after_s=4)).answer(call()) == MockAnswer('{"error": "full"}', True, 4)  # noqa: FBT003 - the error
    assert mocks(Mock(Answers.TIMES_OUT)).answer(call()) == MockAnswer('{"error": "timed out"}', True, TIMEOUT_S)  # noqa: FBT003 - the error
    assert mocks(Mock(Answers.TIMES_OUT, after_s=8)).answer(call()).after_s == 8
    assert mocks(Mock(Answers.MALFORMED, '{"refer')).answer(call()) == MockAnswer('{"refer')


def test_a_rule_answers_only_so_often_then_the_next_one_does() -> None:
    tools = mocks(Mock(Answers.FAILS, "busy", times=2), Mock(Answers.RETURNS, "ok"))
    earlier: list[ToolCall] = []
    seen = []
    for _ in range(4):
        seen.append(tools.answer(call(), earlier=earlier).is_error)
        earlier.append(call())

    assert seen == [True, True, False, False]


def test_calls_of_other_tools_and_for_other_rules_use_up_nothing() -> None:
    tools = mocks(Mock(Answers.FAILS, "busy", when=only("name", "Hobbs"), times=1), Mock(Answers.RETURNS, "ok"))
    others = (call("find", name="Hobbs"), call(name="Moss"))

    assert tools.answer(call(name="Hobbs"), earlier=others).is_error
    assert not tools.answer(call(name="Hobbs"), earlier=(*others, call(name="Hobbs"))).is_error


def test_another_process_gets_the_same_answer_from_the_same_past() -> None:
    rules = (Mock(Answers.FAILS, "busy", times=1), Mock(Answers.RETURNS, "ok"))

    assert mocks(*rules).answer(call(), earlier=(call(),)) == mocks(*rules).answer(call(), earlier=(call(),))


def test_a_call_that_no_rule_fits_is_told_apart() -> None:
    tools = mocks(Mock(Answers.RETURNS, "ok", when=only("name", "Hobbs")))

    for wrong in (call(name="Moss"), call("unknown")):
        answer = tools.answer(wrong)
        assert (answer.matched, answer.is_error) == (False, True)


def test_arguments_that_are_no_object_are_the_agents_own_fault() -> None:
    answer = mocks(Mock(Answers.RETURNS, "ok")).answer(ToolCall("book", {}, malformed="{"))

    assert (answer.matched, answer.is_error) == (True, True)


def test_tools_that_end_a_call_or_hand_it_over_succeed_unless_a_mock_says_otherwise() -> None:
    busy = ToolMocks({"transfer_to_human": (Mock(Answers.FAILS, "busy", times=1),)})

    for name in ("end_call", "hang_up", "transfer_to_human"):
        answer = ToolMocks().answer(call(name))
        assert (answer.matched, answer.is_error) == (True, False)
    assert busy.answer(call("transfer_to_human")).is_error
    assert not busy.answer(call("transfer_to_human"), earlier=(call("transfer_to_human"),)).is_error
