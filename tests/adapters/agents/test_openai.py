"""An agent behind a chat endpoint in OpenAI's format."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qa_worker.adapters.agents.openai import OpenAiAgent
from qa_worker.adapters.agents.web import AgentWeb
from qa_worker.application.playing import AgentKind, AgentReply
from qa_worker.domain.chat import CUT_OFF, PLATFORM_NOTE
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role
from tests.servers.behaviours import Hang
from tests.servers.openai_endpoint import OpenAiEndpoint, completion
from tests.servers.receiver import Behaviour, Reply
from tests.stage import a_context, said_by_agent, said_by_caller

CONTEXT = a_context(AgentKind.OPENAI)


@pytest.fixture
def server() -> Iterator[OpenAiEndpoint]:
    with OpenAiEndpoint() as running:
        yield running
        assert running.asked is not None


@pytest.fixture
def agent(server: OpenAiEndpoint, web: AgentWeb) -> OpenAiAgent:
    headers = {"authorization": "Bearer ${QA_AGENT_SECRET_KEY}"}
    return OpenAiAgent({"url": f"{server.base}/", "model": "small-1", "headers": headers}, web)


def _replied(given: AgentReply | Failure) -> AgentReply:
    assert isinstance(given, AgentReply), given
    return given


def test_the_endpoint_is_asked_in_its_format(agent: OpenAiAgent, server: OpenAiEndpoint) -> None:
    history = (said_by_agent("Hello."), said_by_caller("How much?"), said_by_agent(f"Ninety {CUT_NOTE}"))

    reply = _replied(agent.reply(CONTEXT, history, "What?"))

    assert [turn.text for turn in reply.turns] == ["I see."]
    assert (reply.usage, reply.cost_micro_usd) == (Usage(input_tokens=40, output_tokens=7), None)
    (asked,) = server.asked
    assert (asked["model"], asked["max_tokens"]) == ("small-1", 900)
    assert asked["messages"][0] == {"role": "system", "content": f"You take table bookings.\n\n{PLATFORM_NOTE}"}
    assert asked["messages"][-2:] == [
        {"role": "assistant", "content": "Ninety"},
        {"role": "user", "content": f"{CUT_OFF}\nWhat?"},
    ]
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["create_booking", "end_call"]
    sent = server.deliveries[0]
    assert (sent.path, sent.headers["authorization"]) == ("/v1/chat/completions", "Bearer s3cret")


def test_tools_answer_from_mocks(agent: OpenAiAgent, server: OpenAiEndpoint) -> None:
    server.calls(("create_booking", '{"guests": 9}'), ("create_booking", '{"guests": 2}'), text="One moment.")
    server.says("Nine won't do.")

    reply = _replied(agent.reply(CONTEXT, (), "Nine, or two."))

    assert [(turn.role, turn.text) for turn in reply.turns] == [
        (Role.AGENT, "One moment."),
        (Role.TOOL, '{"error": "no table of that size"}'),
        (Role.TOOL, '{"error": "timed out"}'),
        (Role.AGENT, "Nine won't do."),
    ]
    assert [message["role"] for message in server.asked[1]["messages"][-3:]] == ["assistant", "tool", "tool"]


@pytest.mark.parametrize("arguments", ['{"guests": ', "[2]", '"two"', '{"guests": NaN}'])
def test_broken_arguments_are_evidence_about_the_agent(
    agent: OpenAiAgent, server: OpenAiEndpoint, arguments: str
) -> None:
    server.calls(("create_booking", arguments))

    reply = _replied(agent.reply(CONTEXT, (), "Two."))

    assert reply.turns[0].tool_calls[0].malformed == arguments
    assert reply.turns[1].is_error is True
    again = server.asked[1]["messages"][-2]["tool_calls"][0]["function"]
    assert again == {"name": "create_booking", "arguments": arguments}


def test_more_fields_can_be_sent_and_taken_out(server: OpenAiEndpoint, web: AgentWeb) -> None:
    body = {"max_tokens": None, "max_completion_tokens": 500, "temperature": 0}
    OpenAiAgent({"url": server.base, "model": "m", "body": body}, web).reply(CONTEXT, (), "Hello?")

    (asked,) = server.asked
    assert "max_tokens" not in asked
    assert (asked["max_completion_tokens"], asked["temperature"]) == (500, 0)


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        (Reply(500), FailureKind.TRANSIENT, "agent_http_500"),
        (Hang(), FailureKind.TRANSIENT, "agent_timeout"),
        (Reply(200, b"{"), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b"[]"), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b'{"choices": []}'), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b'{"choices": [{"message": "hi"}]}'), FailureKind.UNREADABLE, "agent_reply"),
        (completion(content=[1]), FailureKind.UNREADABLE, "agent_reply"),
        (completion(tool_calls={"a": 1}), FailureKind.UNREADABLE, "agent_reply"),
        (completion(tool_calls=[{"function": {}}]), FailureKind.UNREADABLE, "agent_reply"),
        (completion("length", content="So"), FailureKind.UNREADABLE, "agent_length"),
        (completion("content_filter", content=""), FailureKind.UNREADABLE, "agent_content_filter"),
    ],
)
def test_every_fault_is_a_failure_of_its_kind(
    agent: OpenAiAgent, server: OpenAiEndpoint, behaviour: Behaviour, kind: FailureKind, code: str
) -> None:
    server.then(behaviour)

    failure = agent.reply(a_context(AgentKind.OPENAI, reply_s=0.4), (), "Two.")

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (kind, code)


@pytest.mark.parametrize("settings", [{"url": "http://127.0.0.1/v1"}, {"model": "m"}, {"url": 5, "model": "m"}])
def test_a_target_that_lacks_something_is_refused(web: AgentWeb, settings: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="is missing or no text"):
        OpenAiAgent(settings, web)
