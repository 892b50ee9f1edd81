"""An agent behind HTTP: what it is asked, what it may answer, and what can go wrong on the way."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from qa_worker.adapters.agents.http import HttpAgent
from qa_worker.adapters.agents.web import MAX_REPLY_BYTES, AgentWeb
from qa_worker.application.playing import AgentKind, AgentReply
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role, ToolCall, Turn
from tests.servers.agent_endpoint import AgentEndpoint
from tests.servers.behaviours import Cut, Drip, Hang
from tests.servers.receiver import Behaviour, Reply, Reset
from tests.stage import RUN_ID, a_context, said_by_agent, said_by_caller

CONTEXT = a_context(AgentKind.HTTP)
HISTORY = (
    said_by_agent("Booking line, how can I help?"),
    said_by_caller("A table."),
    said_by_agent("", ToolCall("look", {"day": "Friday"}, "c1")),
    Turn(Role.TOOL, "[]", tool_call_id="c1", is_error=False),
    said_by_agent(f"We are open from {CUT_NOTE}"),
)


@pytest.fixture
def server() -> Iterator[AgentEndpoint]:
    with AgentEndpoint() as running:
        yield running


def _agent(server: AgentEndpoint, web: AgentWeb, headers: Mapping[str, Any] | None = None) -> HttpAgent:
    return HttpAgent({"url": server.url, "headers": headers or {}}, web)


def _failure(given: AgentReply | Failure) -> Failure:
    assert isinstance(given, Failure), given
    return given


def test_the_agent_is_asked_with_all_that_came_before(server: AgentEndpoint, web: AgentWeb) -> None:
    _agent(server, web).reply(CONTEXT, HISTORY, "[the caller was silent for 15 seconds] On Friday.")

    (asked,) = server.asked
    assert asked == {
        "conversation_id": str(RUN_ID),
        "turn": 2,
        "agent": {"id": "booking", "version": "7"},
        "message": "[the caller was silent for 15 seconds] On Friday.",
        "history": [
            {"role": "agent", "text": "Booking line, how can I help?"},
            {"role": "caller", "text": "A table."},
            {"role": "agent", "text": "", "tool_calls": [{"id": "c1", "name": "look", "arguments": {"day": "Friday"}}]},
            {"role": "tool", "text": "[]", "tool_call_id": "c1", "is_error": False},
            {"role": "agent", "text": "We are open from", "interrupted": True},
        ],
    }


def test_the_same_turn_carries_the_same_key_when_it_is_asked_again(server: AgentEndpoint, web: AgentWeb) -> None:
    agent = _agent(server, web)
    for _ in range(2):
        agent.reply(CONTEXT, HISTORY, "On Friday.")
    agent.reply(CONTEXT, (*HISTORY, said_by_caller("On Friday.")), "At six.")

    assert [sent.headers["idempotency-key"] for sent in server.deliveries] == [
        f"{RUN_ID}:2",
        f"{RUN_ID}:2",
        f"{RUN_ID}:3",
    ]


def test_words_and_tools_become_turns(server: AgentEndpoint, web: AgentWeb) -> None:
    calls = [
        {"name": "book", "arguments": {"guests": 2}, "result": {"reference": "HT-1"}},
        {"name": "transfer_to_human", "result": "ok", "is_error": False},
        {"name": "log"},
    ]
    server.says(" It's booked. ", tool_calls=calls, ends=True)

    reply = _agent(server, web).reply(CONTEXT, (), "Two.")

    assert isinstance(reply, AgentReply)
    assert [(turn.role, turn.text) for turn in reply.turns] == [
        (Role.AGENT, ""),
        (Role.TOOL, '{"reference": "HT-1"}'),
        (Role.AGENT, ""),
        (Role.TOOL, "ok"),
        (Role.AGENT, ""),
        (Role.AGENT, "It's booked."),
    ]
    assert (reply.ends, reply.transferred, reply.cost_micro_usd) == (True, True, 0)
    assert reply.latency_s > 0


def test_an_agent_may_say_nothing(server: AgentEndpoint, web: AgentWeb) -> None:
    server.sends(b"{}")

    reply = _agent(server, web).reply(CONTEXT, (), "Hello?")

    assert isinstance(reply, AgentReply)
    assert reply.turns == ()


def test_a_secret_goes_into_its_header_and_nowhere_else(server: AgentEndpoint, web: AgentWeb) -> None:
    agent = _agent(server, web, {"Authorization": "Bearer ${QA_AGENT_SECRET_KEY}", "X-Tenant": "lab"})

    agent.reply(CONTEXT, (), "Hello?")

    sent = server.deliveries[0]
    assert (sent.headers["authorization"], sent.headers["x-tenant"]) == ("Bearer s3cret", "lab")
    assert b"s3cret" not in sent.body
    assert "s3cret" not in repr(agent._endpoint)


@pytest.mark.parametrize(
    ("headers", "field", "words"),
    [
        ({"authorization": "${OTHER}"}, "headers", "names OTHER, which is not set"),
        ({"bad name": "x"}, "headers", "a name that can't be set"),
        ({"Host": "elsewhere"}, "headers", "a name that can't be set"),
        ({"x-a": "line\nbreak"}, "headers.x-a", "can't be sent"),
        ({"x-a": "é"}, "headers.x-a", "can't be sent"),
        ({"x-a": 5}, "headers.x-a", "is no text"),
        ({f"x-{number}": "a" for number in range(40)}, "headers", "has 40 entries"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_before_the_run_begins(
    web: AgentWeb, headers: Mapping[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        HttpAgent({"url": "http://127.0.0.1/", "headers": headers}, web)

    assert refused.value.field == field
    assert words in str(refused.value)


def test_a_target_without_a_url_is_refused(web: AgentWeb) -> None:
    with pytest.raises(InvalidInput, match=r"target\.url: is missing"):
        HttpAgent({}, web)


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        (Reply(500), FailureKind.TRANSIENT, "agent_http_500"),
        (Reply(503, headers={"retry-after": "9"}), FailureKind.TRANSIENT, "agent_http_503"),
        (Reply(429, headers={"retry-after": "9"}), FailureKind.RATE_LIMITED, "agent_http_429"),
        (Reply(401), FailureKind.REJECTED, "agent_http_401"),
        (Reply(404), FailureKind.REJECTED, "agent_http_404"),
        (Reply(307, headers={"location": "http://127.0.0.1:1/"}), FailureKind.REJECTED, "agent_http_307"),
        (Hang(), FailureKind.TRANSIENT, "agent_timeout"),
        (Drip("body"), FailureKind.TRANSIENT, "agent_timeout"),
        (Drip("headers"), FailureKind.TRANSIENT, "agent_timeout"),
        (Cut("nothing"), FailureKind.TRANSIENT, "agent_connection"),
        (Cut("body"), FailureKind.TRANSIENT, "agent_connection"),
        (Reset(), FailureKind.TRANSIENT, "agent_connection"),
        (Reply(200, b"x" * (MAX_REPLY_BYTES + 1)), FailureKind.UNREADABLE, "agent_reply_too_long"),
        (Reply(200, b"\x1f\x8b", {"content-encoding": "gzip"}), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b'{"text": "se'), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b"<html>"), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b""), FailureKind.UNREADABLE, "agent_reply"),
        (Reply(200, b"[" * 100_000), FailureKind.UNREADABLE, "agent_reply"),
    ],
    ids=repr,
)
def test_every_fault_is_a_failure_of_its_kind(
    server: AgentEndpoint, web: AgentWeb, behaviour: Behaviour, kind: FailureKind, code: str
) -> None:
    server.then(behaviour)

    failure = _failure(_agent(server, web).reply(a_context(AgentKind.HTTP, reply_s=0.4), (), "s3cret words"))

    assert (failure.kind, failure.code) == (kind, code)
    assert failure.retry_after_s == (9 if code in {"agent_http_503", "agent_http_429"} else None)
    assert "s3cret" not in repr(failure)
    assert len(server.deliveries) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("5", "is no object"),
        ("[]", "is no object"),
        ('{"text": 5}', "must have a text in text"),
        ('{"ends": "yes"}', "must have true or false in ends"),
        ('{"tool_calls": {}}', "must have a list in tool_calls"),
        ('{"tool_calls": [5]}', "has a tool_calls[0] that is no object"),
        ('{"tool_calls": [{"name": " "}]}', "has no text in tool_calls[0].name"),
        ('{"tool_calls": [{"name": "a", "arguments": []}]}', "must have an object in tool_calls[0].arguments"),
        ('{"tool_calls": [{"name": "a", "arguments": {"x": NaN}}]}', "is no JSON"),
        (
            '{"tool_calls": [{"name": "a", "result": ' + "[" * 90 + "]" * 90 + "}]}",
            "has no JSON in tool_calls[0].result",
        ),
        ('{"text": "' + "a" * 20_001 + '"}', "more than 20,000 characters"),
        ('{"tool_calls": [' + ",".join(['{"name": "a"}'] * 51) + "]}", "more than 50 tool_calls"),
    ],
)
def test_a_reply_of_another_form_is_refused_with_the_place(
    server: AgentEndpoint, web: AgentWeb, body: str, words: str
) -> None:
    server.sends(body.encode())

    failure = _failure(_agent(server, web).reply(CONTEXT, (), "Two."))

    assert (failure.kind, failure.code) == (FailureKind.UNREADABLE, "agent_reply")
    assert words in failure.message


def test_what_no_database_takes_is_left_out_of_words_and_arguments(server: AgentEndpoint, web: AgentWeb) -> None:
    server.sends(rb'{"text": "a\u0000b\ud800", "tool_calls": [{"name": "n", "arguments": {"k\u0000": ["v\u0000"]}}]}')

    reply = _agent(server, web).reply(CONTEXT, (), "Two.")

    assert isinstance(reply, AgentReply)
    assert reply.turns[0].tool_calls[0].arguments == {"k": ["v"]}
    assert reply.turns[1].text == "ab\N{REPLACEMENT CHARACTER}"


def test_nobody_there_is_a_connection_fault(web: AgentWeb) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        agent = HttpAgent({"url": f"http://127.0.0.1:{taken.getsockname()[1]}/"}, web)
        failure = _failure(agent.reply(CONTEXT, (), "Hello?"))

    assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "agent_connection")


def test_this_machine_is_reached_only_where_the_url_says_so(
    server: AgentEndpoint, make_web: Callable[..., AgentWeb]
) -> None:
    rebinding = make_web(resolver=lambda _host, _port: ["127.0.0.1"])
    named = HttpAgent({"url": f"https://agent.example:{server.port}/"}, rebinding)
    plain = HttpAgent({"url": f"http://localhost:{server.port}/"}, rebinding)

    refused = _failure(named.reply(CONTEXT, (), "Hello?"))

    assert (refused.kind, refused.code) == (FailureKind.REJECTED, "agent_refused_url")
    assert "QA_AGENT_ALLOWED_NETWORKS" in refused.message
    assert isinstance(plain.reply(CONTEXT, (), "Hello?"), AgentReply)


@pytest.mark.parametrize(
    "url",
    [
        "http://agent.example/",
        "http://10.0.0.1/",
        "https://169.254.169.254/latest",
        "http://0x7f000001/",
        "http://127.1/",
        "http://user@127.0.0.1/",
        "http://localhost.agent.example/",
        "file:///etc/passwd",
        "nonsense",
        "",
    ],
)
def test_other_places_are_refused(web: AgentWeb, url: str) -> None:
    agent = HttpAgent({"url": url or "//"}, web)

    assert _failure(agent.reply(CONTEXT, (), "Hello?")).code == "agent_refused_url"


def test_ops_can_close_this_machine(server: AgentEndpoint, make_web: Callable[..., AgentWeb]) -> None:
    closed = make_web(loopback=False)

    failure = _failure(_agent(server, closed).reply(CONTEXT, (), "Hello?"))

    assert failure.code == "agent_refused_url"
    assert server.deliveries == []
