"""Agent and caller played by Claude: through the gateway's port, over real HTTP to the local Messages API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from qa_worker.adapters.agents.model import ModelAgent, ModelCaller
from qa_worker.adapters.agents.tools import MAX_ROUNDS
from qa_worker.adapters.claude.conversation import AsyncClaudeChat
from qa_worker.adapters.eventloop import ChatOnLoop, EventLoop
from qa_worker.application.conversing import Turned
from qa_worker.application.playing import AgentKind, AgentReply, CallerReply, PlayContext
from qa_worker.domain.chat import CUT_OFF, PLATFORM_NOTE
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.interruption import CUT_NOTE, cut
from qa_worker.domain.markers import AfterWords
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn
from tests.servers import behaviours as does
from tests.servers.messages_api import MessagesServer
from tests.servers.talking import check, texts, uses, words
from tests.stage import AGENT, SCENARIO, a_context, said_by_agent, said_by_caller

TURNED = Turned("claude-haiku-5-5", "low", 1)
GREETING = said_by_agent(AGENT.greeting)
BOOK = ("create_booking", {"guests": 2})


@pytest.fixture(scope="module")
def running() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


@pytest.fixture(scope="module")
def model(running: MessagesServer) -> Iterator[ChatOnLoop]:
    loop = EventLoop()
    chat = AsyncClaudeChat("sk-test", now=lambda: datetime(2026, 11, 23, tzinfo=UTC), base_url=running.url)
    yield ChatOnLoop(chat, loop)
    loop.run(chat.aclose())
    loop.close()


@pytest.fixture
def server(running: MessagesServer) -> Iterator[MessagesServer]:
    running.reset()
    yield running
    for received in running.requests:
        check(received.body)


@pytest.fixture
def agent(model: ChatOnLoop) -> ModelAgent:
    return ModelAgent(model, TURNED)


@pytest.fixture
def caller(model: ChatOnLoop) -> ModelCaller:
    return ModelCaller(model, TURNED)


def _replied(given: AgentReply | Failure) -> AgentReply:
    assert isinstance(given, AgentReply), given
    return given


def _line(given: CallerReply | Failure) -> CallerReply:
    assert isinstance(given, CallerReply), given
    return given


CONTEXT: PlayContext = a_context(AgentKind.CLAUDE)


def test_the_agent_speaks_by_its_own_instructions(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(words("For how many?"))

    reply = _replied(agent.reply(CONTEXT, (GREETING,), "A table, please."))

    assert reply.turns == (Turn(Role.AGENT, "For how many?"),)
    (asked,) = server.requests
    assert asked.body["system"][0]["text"] == f"You take table bookings.\n\n{PLATFORM_NOTE}"
    assert [tool["name"] for tool in asked.body["tools"]] == ["create_booking", "end_call"]
    assert asked.body["max_tokens"] == CONTEXT.limits.max_reply_tokens == 900
    assert reply.latency_s > 0


def test_tools_answer_from_mocks_until_the_agent_speaks(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(uses(BOOK, text="One moment."), uses(BOOK), words("It's booked. HT-5102."))

    reply = _replied(agent.reply(CONTEXT, (GREETING,), "Two, on Friday."))

    # the first call times out and the second one works: each mock counts the calls of the whole run
    assert [(turn.role, turn.text) for turn in reply.turns] == [
        (Role.AGENT, "One moment."),
        (Role.TOOL, '{"error": "timed out"}'),
        (Role.AGENT, ""),
        (Role.TOOL, '{"reference": "HT-5102"}'),
        (Role.AGENT, "It's booked. HT-5102."),
    ]
    uses_made = Transcript(reply.turns).tool_uses()
    assert [use.result.is_error for use in uses_made if use.result] == [True, False]
    assert reply.usage.input_tokens == 900
    assert reply.cost_micro_usd == 120


def test_slow_tools_delay_the_first_word(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(uses(BOOK), words("It's booked."), uses(BOOK, text="One moment."), words("It's booked."))

    slow = _replied(agent.reply(CONTEXT, (), "Two."))
    bridged = _replied(agent.reply(CONTEXT, (), "Two."))

    assert slow.latency_s >= 8.0
    assert bridged.latency_s < 8.0
    assert bridged.ready_s == tuple(sorted(bridged.ready_s))
    assert bridged.ready_s[-1] >= 8.0


def test_a_failing_tool_is_told_as_an_error(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(uses(("create_booking", {"guests": 9})), words("I'm sorry, that is too many."))

    reply = _replied(agent.reply(CONTEXT, (), "Nine of us."))

    shown = server.requests[-1].body["messages"][-1]["content"][0]
    assert (shown["content"], shown["is_error"]) == ('{"error": "no table of that size"}', True)
    assert reply.turns[1].is_error is True


def test_a_tool_that_does_not_exist_gets_an_error_too(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(uses(("refund", {})), words("I can't do that."))

    assert _replied(agent.reply(CONTEXT, (), "My money back.")).turns[1].is_error is True


def test_an_agent_that_never_stops_calling_tools_has_said_nothing(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(*[uses(BOOK)] * (MAX_ROUNDS + 5))

    reply = _replied(agent.reply(CONTEXT, (), "Two."))

    assert len(server.requests) == MAX_ROUNDS
    assert [turn.role for turn in reply.turns] == [Role.AGENT, Role.TOOL] * MAX_ROUNDS
    assert not any(turn.text for turn in reply.turns if turn.role is Role.AGENT)


def test_hanging_up_is_a_tool(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(uses(("end_call", {}), text="Goodbye."), uses(("end_call", {})), words("Goodbye."))

    at_once = _replied(agent.reply(CONTEXT, (), "Bye."))
    wordless = _replied(agent.reply(CONTEXT, (), "Bye."))

    assert (at_once.ends, at_once.transferred, len(at_once.turns)) == (True, False, 2)
    assert (wordless.ends, wordless.turns[-1].text) == (True, "Goodbye.")
    assert len(server.requests) == 3


def test_silence_is_no_turn_at_all(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(words(""))

    assert _replied(agent.reply(CONTEXT, (GREETING,), "Hello?")).turns == ()


def test_an_interruption_is_in_the_history_that_the_agent_sees(agent: ModelAgent, server: MessagesServer) -> None:
    heard = cut("The deposit is ninety euros, and we keep it", AfterWords(4)).history

    agent.reply(CONTEXT, (GREETING, said_by_caller("Nine of us."), said_by_agent(heard)), "How much?")

    sides = texts(server.requests[0].body)
    assert sides[-2:] == [("assistant", "The deposit is ninety"), ("user", f"{CUT_OFF}\nHow much?")]
    assert "we keep it" not in str(server.requests[0].body)


def test_a_silence_of_the_caller_is_told_to_the_agent(agent: ModelAgent, server: MessagesServer) -> None:
    agent.reply(CONTEXT, (GREETING,), "[the caller was silent for 15 seconds]")

    assert texts(server.requests[0].body)[-1] == ("user", "[the caller was silent for 15 seconds]")


def test_an_agent_cannot_write_our_notes(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(words(f"I was going to say\x00 that it is free. {CUT_NOTE}"))

    assert _replied(agent.reply(CONTEXT, (), "Well?")).turns[0].text == "I was going to say that it is free."


def test_tools_that_were_used_before_are_shown_with_their_results(agent: ModelAgent, server: MessagesServer) -> None:
    call = ToolCall("create_booking", {"guests": 2}, "toolu_0")
    history = (
        GREETING,
        said_by_caller("Two."),
        said_by_agent("", call),
        Turn(Role.TOOL, "{}", tool_call_id="toolu_0", is_error=True),
        said_by_agent("It doesn't work."),
    )
    server.enqueue(uses(BOOK), words("Now it does."))

    reply = _replied(agent.reply(CONTEXT, history, "Try again."))

    # the timeout answers one call only, and that one was made before
    assert reply.turns[1].text == '{"reference": "HT-5102"}'


def test_a_fault_in_the_middle_of_a_reply_is_its_failure(agent: ModelAgent, server: MessagesServer) -> None:
    server.enqueue(uses(BOOK), does.overloaded())

    failure = agent.reply(CONTEXT, (), "Two.")

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.OVERLOADED
    # the message before it was billed
    assert failure.usage.output_tokens > 0
    assert failure.cost_micro_usd


def test_the_caller_plays_its_brief(caller: ModelCaller, server: MessagesServer) -> None:
    server.enqueue(words('Caller: "A table for two. [silence - 3 seconds]"'))

    said = _line(caller.line(CONTEXT, (GREETING,), 0))

    assert (said.line, said.done) == ("A table for two. [silence - 3 seconds]", False)
    assert said.usage.output_tokens == 20
    assert said.cost_micro_usd
    (asked,) = server.requests
    assert SCENARIO.persona in asked.body["system"][0]["text"]
    assert "You take table bookings" not in str(asked.body)
    assert "tools" not in asked.body
    assert texts(asked.body) == [("user", f"<heard>\n{AGENT.greeting}\n</heard>")]


def test_the_opening_is_said_as_it_stands_and_asks_nobody(caller: ModelCaller, server: MessagesServer) -> None:
    context = a_context(scenario=replace(SCENARIO, opening="Hello? [silence - 2 seconds]"))

    assert caller.line(context, (GREETING,), 0) == CallerReply("Hello? [silence - 2 seconds]")
    assert server.requests == []


def test_hanging_up_is_the_end(caller: ModelCaller, server: MessagesServer) -> None:
    server.enqueue(words("Thank you, goodbye. [hangs up]"))

    assert _line(caller.line(CONTEXT, (GREETING,), 4)).done


def test_a_marker_that_cannot_be_understood_stays_in_the_line_to_be_reported(
    caller: ModelCaller, server: MessagesServer
) -> None:
    server.enqueue(words("Yes. [sighs deeply]"))

    assert _line(caller.line(CONTEXT, (GREETING,), 1)).line == "Yes. [sighs deeply]"


@pytest.mark.parametrize("written", ["", "[sighs deeply]", "(pauses)"])
def test_a_line_of_which_nothing_can_be_played_is_a_failure(
    caller: ModelCaller, server: MessagesServer, written: str
) -> None:
    server.enqueue(words(written))

    failure = caller.line(CONTEXT, (GREETING,), 1)

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (FailureKind.UNREADABLE, "caller_line")
    assert failure.usage.input_tokens > 0
    assert failure.cost_micro_usd


def test_a_refusal_of_the_caller_is_a_failure(caller: ModelCaller, server: MessagesServer) -> None:
    server.enqueue(does.refusal())

    failure = caller.line(CONTEXT, (GREETING,), 1)

    assert isinstance(failure, Failure)
    assert failure.code == "refusal:general_harms"
