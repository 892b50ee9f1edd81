"""Whole calls, turn by turn through rows as a run plays them: what each side gets to see when the other one acts up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from qa_worker.adapters.agents.model import ModelAgent, ModelCaller
from qa_worker.adapters.agents.scripted import ScriptedAgent, ScriptedCaller
from qa_worker.adapters.claude.conversation import AsyncClaudeChat
from qa_worker.adapters.eventloop import ChatOnLoop, EventLoop
from qa_worker.application.conversing import Turned
from qa_worker.application.playing import AgentPlayer, AgentReply, CallerPlayer, CallerReply, PlayContext
from qa_worker.domain.chat import CUT_OFF
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.playback import (
    AskAgent,
    AskCaller,
    Greet,
    Line,
    MakeMove,
    Over,
    PlayedTurn,
    Rows,
    Written,
    greeted,
    history_of_caller,
    merged,
    moved,
    next_step,
    replied,
    transcript_of,
)
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Play
from qa_worker.domain.transcript import Role, Turn
from tests.servers.messages_api import MessagesServer
from tests.servers.talking import check, texts, uses, words
from tests.stage import AGENT, SCENARIO, a_context

TURNED = Turned("claude-haiku-5-5", "low", 1)


def play(context: PlayContext, agent: AgentPlayer, caller: CallerPlayer) -> tuple[Rows, Completion]:
    """The run without a database."""
    rows: list[PlayedTurn] = []
    for _ in range(100):
        step = next_step(rows, context.scenario, greeting=context.agent.greeting, limits=context.limits)
        if isinstance(step, Over):
            return rows, step.completion
        rows = merged(rows, _taken(step, rows, context, agent, caller))
    raise AssertionError("the call never ends")


def _taken(
    step: Greet | AskCaller | MakeMove | AskAgent,
    rows: Rows,
    context: PlayContext,
    agent: AgentPlayer,
    caller: CallerPlayer,
) -> Written:
    match step:
        case Greet(text):
            return greeted(text)
        case AskCaller(number):
            given = caller.line(context, history_of_caller(rows), number)
            assert isinstance(given, CallerReply), given
            return moved(rows, Line(given.line, number, given.done), 0, live=False, usage=Usage(), cost_micro_usd=0)
        case MakeMove(line, move):
            return moved(rows, line, move, live=False, usage=Usage(), cost_micro_usd=0)
        case AskAgent(history, told):
            reply = agent.reply(context, history, told)
            assert isinstance(reply, AgentReply), reply
            last = PlayedTurn(Turn(Role.AGENT, ""), ends=reply.ends, transferred=reply.transferred)
            return replied(rows, reply.turns, latency_s=reply.latency_s, ready_s=reply.ready_s, last=last)


@pytest.fixture(scope="module")
def server() -> Iterator[MessagesServer]:
    with MessagesServer() as running:
        yield running


@pytest.fixture(scope="module")
def model(server: MessagesServer) -> Iterator[ChatOnLoop]:
    loop = EventLoop()
    chat = AsyncClaudeChat("sk-test", now=lambda: datetime(2026, 11, 23, tzinfo=UTC), base_url=server.url)
    yield ChatOnLoop(chat, loop)
    loop.run(chat.aclose())
    loop.close()


def test_two_models_hold_a_call_with_silence_an_interruption_and_a_tool(
    server: MessagesServer, model: ChatOnLoop
) -> None:
    server.reset()
    server.enqueue(
        words("A table for two, on Friday."),
        words("Friday at six is free for two, and we ask for a deposit of ninety euros."),
        words("[interrupts after 6 words] Six is fine. [silence - 10 seconds] Hello?"),
        uses(("create_booking", {"guests": 2}), text="One moment."),
        words("It's booked, reference HT-5102."),
        words("Hello, I'm here. It is booked."),
        words("Thank you. [hangs up]"),
    )

    rows, completion = play(a_context(), ModelAgent(model, TURNED), ModelCaller(model, TURNED))

    assert completion is Completion.CALLER_HUNG_UP
    for received in server.requests:
        check(received.body)
    sent = [texts(received.body) for received in server.requests]
    # the caller hears the whole turn that it cuts, the agent only what was heard of it
    assert "deposit of ninety euros" in sent[2][-1][1]
    assert sent[3][-2:] == [("assistant", "Friday at six is free for"), ("user", f"{CUT_OFF}\nSix is fine.")]
    assert sent[5][-1] == ("user", "[the caller was silent for 10 seconds] Hello?")
    # no tool is heard on the telephone
    assert "reference" not in str(sent[6][0])
    assert "create_booking" not in str(server.requests[6].body["messages"])
    assert [use.call.name for use in transcript_of(rows).tool_uses()] == ["create_booking"]


def test_a_scripted_call_needs_no_model() -> None:
    scenario = replace(SCENARIO, play=Play.SCRIPT, steps=("A table for two, please.", "Friday.", "Thank you."))

    rows, completion = play(a_context(scenario=scenario), ScriptedAgent(AGENT.script), ScriptedCaller())

    assert completion is Completion.AGENT_ENDED
    assert [row.turn.text for row in rows if row.turn.role is Role.AGENT and row.turn.text] == [
        AGENT.greeting,
        "For which day?",
        "It's booked.",
        "Goodbye.",
    ]
