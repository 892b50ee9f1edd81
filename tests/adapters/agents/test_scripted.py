from __future__ import annotations

from dataclasses import replace

import pytest

from qa_worker.adapters.agents.scripted import LATENCY_S, ScriptedAgent, ScriptedCaller
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.mocks import TIMEOUT_S
from qa_worker.domain.transcript import Role, Turn
from tests.stage import AGENT, SCENARIO, a_context, said_by_agent, said_by_caller

FIRST = said_by_caller("A table for two, please.")


def test_the_script_goes_on_with_each_turn_of_the_caller() -> None:
    agent = ScriptedAgent(AGENT.script)

    first = agent.reply(a_context(), (said_by_agent(AGENT.greeting),), FIRST.text)
    third = agent.reply(a_context(), (FIRST, said_by_agent("For which day?"), said_by_caller("Friday.")), "Bye.")

    assert [turn.text for turn in first.turns] == ["For which day?"]
    assert ([turn.text for turn in third.turns], third.ends) == (["Goodbye."], True)
    assert (first.latency_s, first.ends, first.cost_micro_usd) == (LATENCY_S, False, 0)


def test_a_tool_answers_from_its_mock_and_takes_its_time() -> None:
    agent = ScriptedAgent(AGENT.script)

    reply = agent.reply(a_context(), (FIRST, said_by_agent("For which day?")), "Friday.")

    called, result, words = reply.turns
    assert called.tool_calls[0].name == "create_booking"
    assert (result.role, result.is_error, result.tool_call_id) == (Role.TOOL, True, called.tool_calls[0].id)
    assert words == Turn(Role.AGENT, "It's booked.")
    took_s = AGENT.mocks.rules["create_booking"][1].after_s or TIMEOUT_S
    assert reply.latency_s == LATENCY_S + took_s
    assert reply.ready_s == (LATENCY_S, LATENCY_S + took_s, LATENCY_S + took_s)


def test_an_agent_without_a_script_cannot_be_played_by_it() -> None:
    with pytest.raises(InvalidInput, match="script: is missing"):
        ScriptedAgent(None)


def test_the_fixed_lines_are_said_in_order_and_the_last_one_says_so() -> None:
    context = a_context(scenario=replace(SCENARIO, opening="Hello?", steps=("A table.", "[hangs up]")))
    caller = ScriptedCaller()

    said = [caller.line(context, (), number) for number in range(4)]

    assert [(reply.line, reply.done) for reply in said] == [
        ("Hello?", False),
        ("A table.", False),
        ("[hangs up]", True),
        ("", True),
    ]
