"""The loop in which a model uses tools: bounded by one deadline, and by a cancel."""

from __future__ import annotations

from dataclasses import replace

from qa_worker.adapters.agents.tools import converse
from qa_worker.application.conversing import ChatAnswer
from qa_worker.application.playing import AgentKind, AgentReply
from qa_worker.domain.chat import Message, Said
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.transcript import Role, ToolCall
from tests.stage import a_context

CONTEXT = a_context(AgentKind.CLAUDE)


class Model:
    """Calls a tool `rounds` times, then speaks. Keeps how many seconds it was given each time."""

    def __init__(self, *, rounds: int) -> None:
        self.rounds = rounds
        self.within_s: list[float] = []

    def say(self, _messages: tuple[Message, ...], within_s: float) -> ChatAnswer:
        self.within_s.append(within_s)
        number = len(self.within_s)
        calls = (ToolCall("create_booking", {"guests": 2}, f"call_{number}"),) if number <= self.rounds else ()
        return ChatAnswer(Said("" if calls else "Done.", calls), Usage(output_tokens=1), 1)


def test_all_messages_of_a_reply_share_its_time() -> None:
    model = Model(rounds=3)

    converse(CONTEXT, (), "Two.", say=model.say)

    assert len(model.within_s) == 4
    assert model.within_s == sorted(model.within_s, reverse=True)
    assert len({*model.within_s}) == 4
    assert model.within_s[0] <= CONTEXT.limits.reply_s


def test_a_reply_whose_time_is_up_asks_for_nothing_more() -> None:
    model = Model(rounds=3)
    context = replace(CONTEXT, limits=replace(CONTEXT.limits, reply_s=0.0))

    failure = converse(context, (), "Two.", say=model.say)

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "agent_timeout")
    assert model.within_s == []


def test_a_cancel_ends_a_reply_before_its_next_message_and_keeps_what_happened() -> None:
    model, asked = Model(rounds=9), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2

    reply = converse(replace(CONTEXT, stop=stop), (), "Two.", say=model.say)

    assert isinstance(reply, AgentReply)
    assert (reply.cut_short, len(model.within_s), asked) == (True, 2, 2)
    assert [turn.role for turn in reply.turns] == [Role.AGENT, Role.TOOL] * 2
    assert reply.cost_micro_usd == 2
