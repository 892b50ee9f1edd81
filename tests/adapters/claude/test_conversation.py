"""One message of a conversation with Claude, against the local Messages API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from qa_worker.adapters.claude.conversation import AsyncClaudeChat, body
from qa_worker.application.conversing import ChatAnswer, ChatRequest, Turned
from qa_worker.domain.call import ToolSpec
from qa_worker.domain.chat import Message, Said, Side, ToolResult
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.transcript import ToolCall
from tests.servers import behaviours as does
from tests.servers.messages_api import MessagesServer
from tests.servers.talking import check, uses, words

CALL = ToolCall("book", {"guests": 2}, "call_0")
REQUEST = ChatRequest(
    Turned("claude-haiku-5-5", "low", 900),
    "You take bookings.",
    (
        Message(Side.USER, "A table."),
        Message(Side.ASSISTANT, "One moment.", (CALL,)),
        Message(Side.USER, "Well?", results=(ToolResult("call_0", "down", is_error=True),)),
    ),
    key="workspace-1",
    tools=(
        ToolSpec("book", "Books.", {"type": "object", "properties": {"guests": {"type": "integer"}}}),
        ToolSpec("end"),
    ),
)


@dataclass
class Talk:
    chat: AsyncClaudeChat
    loop: asyncio.Runner
    server: MessagesServer

    def say(self, request: ChatRequest = REQUEST) -> ChatAnswer:
        return self.loop.run(self.chat.say(request))


@pytest.fixture(scope="module")
def running() -> Iterator[Talk]:
    with MessagesServer() as server, asyncio.Runner() as loop:
        chat = AsyncClaudeChat(
            "sk-test", now=lambda: datetime(2026, 11, 23, tzinfo=UTC), base_url=server.url, connections=8
        )
        yield Talk(chat, loop, server)
        loop.run(chat.aclose())


@pytest.fixture
def talk(running: Talk) -> Talk:
    running.server.reset()
    return running


def test_the_request_is_one_that_the_provider_takes() -> None:
    sent = body(REQUEST)

    check(sent)
    assert not {"temperature", "top_p", "top_k", "thinking", "tool_choice"} & sent.keys()
    assert (sent["max_tokens"], sent["output_config"]) == (900, {"effort": "low"})
    assert sent["messages"][1]["content"][-1] == {
        "type": "tool_use",
        "id": "call_0",
        "name": "book",
        "input": {"guests": 2},
    }
    assert sent["messages"][2]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "call_0",
        "content": "down",
        "is_error": True,
    }
    assert [tool["input_schema"]["type"] for tool in sent["tools"]] == ["object", "object"]


def test_instructions_and_the_conversation_so_far_are_marked_for_the_cache() -> None:
    sent = body(REQUEST)

    assert "cache_control" in sent["system"][-1]
    assert "cache_control" in sent["messages"][-1]["content"][-1]
    assert json.dumps(sent).count("cache_control") == 2


def test_a_request_without_tools_names_none() -> None:
    assert "tools" not in body(replace(REQUEST, tools=()))


def test_words_come_back_with_what_they_cost(talk: Talk) -> None:
    talk.server.enqueue(words(" It is booked. "))

    answer = talk.say()

    assert answer.result == Said("It is booked.")
    assert (answer.usage, answer.cost_micro_usd) == (Usage(input_tokens=300, output_tokens=20), 40)
    assert answer.took_s > 0


def test_a_call_of_a_tool_comes_back_with_the_words_before_it(talk: Talk) -> None:
    talk.server.enqueue(uses(("book", {"guests": 2}), ("end", {}), text="One moment."))

    assert talk.say().result == Said(
        "One moment.", (ToolCall("book", {"guests": 2}, "toolu_0"), ToolCall("end", {}, "toolu_1"))
    )


def test_a_model_may_say_nothing(talk: Talk) -> None:
    talk.server.enqueue(words(""))

    assert talk.say().result == Said("")


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        (does.refusal("cyber"), FailureKind.UNREADABLE, "refusal:cyber"),
        (does.all_thinking(), FailureKind.UNREADABLE, "max_tokens"),
        (
            words("So", stop_reason="model_context_window_exceeded"),
            FailureKind.REJECTED,
            "model_context_window_exceeded",
        ),
        (words("So", stop_reason="pause_turn"), FailureKind.UNREADABLE, "stop:other"),
        (words("So", stop_reason="tool_use"), FailureKind.UNREADABLE, "stop:other"),
        (does.rate_limited("7"), FailureKind.RATE_LIMITED, "http_429"),
        (does.overloaded(), FailureKind.OVERLOADED, "http_529"),
        (does.spend_cap(), FailureKind.SPEND_CAP, "enforced_spend_limit_reached"),
        (does.unauthorised(), FailureKind.BLOCKED, "http_401"),
        (does.server_error(503), FailureKind.TRANSIENT, "http_503"),
        (does.Cut("nothing"), FailureKind.TRANSIENT, "connection"),
        (does.Cut("body"), FailureKind.TRANSIENT, "cut_answer"),
        (does.html(), FailureKind.TRANSIENT, "bad_response"),
        (does.broken_json(), FailureKind.TRANSIENT, "bad_response"),
        (does.missing_fields(), FailureKind.TRANSIENT, "bad_response"),
        (does.Raw("huge", b" " * (3 << 20)), FailureKind.TRANSIENT, "bad_response"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_fault_is_a_failure_of_its_kind(
    talk: Talk, behaviour: does.Behaviour, kind: FailureKind, code: str
) -> None:
    talk.server.enqueue(behaviour)

    failure = talk.say().result

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (kind, code)
    assert len(talk.server.requests) == 1


def test_what_was_billed_for_a_cut_reply_is_kept(talk: Talk) -> None:
    talk.server.enqueue(does.all_thinking())

    answer = talk.say()

    assert answer.usage.output_tokens == 3000
    assert answer.cost_micro_usd


def test_the_deadline_of_the_request_holds_whatever_the_server_does(talk: Talk) -> None:
    talk.server.enqueue(does.Hang())

    failure = talk.say(replace(REQUEST, within_s=0.1)).result

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "deadline")


def test_the_size_of_a_request_is_told_before_it_is_sent(talk: Talk) -> None:
    longer = replace(REQUEST, system=REQUEST.system + "x" * 2500)

    assert talk.chat.need(longer).input_tokens - talk.chat.need(REQUEST).input_tokens == 1000
    assert talk.chat.need(REQUEST).output_tokens <= 900


def test_the_limits_that_the_provider_tells_are_handed_on(talk: Talk) -> None:
    talk.server.enqueue(does.said("Hello."))

    limits = talk.say().limits

    assert limits is not None
    assert limits.requests == 1000
