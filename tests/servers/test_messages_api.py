from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import behaviours as does
from tests.servers import plausible
from tests.servers.messages_api import MessagesServer, Received

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["quote", "turn", "level"],
    "properties": {
        "quote": {"type": "string"},
        "turn": {"type": "integer"},
        "level": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
    },
}
TALK = "[0] caller: A table, please.\n[1] agent 2.0-3.5s: For how many?\n[2] caller: Two."
BEARER = {"authorization": "Bearer sk-test"}


def body(**changes: Any) -> dict[str, Any]:
    marked = {"type": "text", "text": "rules " * 400, "cache_control": {"type": "ephemeral"}}
    return {
        "model": "claude-haiku-5-5",
        "max_tokens": 3_000,
        "system": [marked],
        "messages": [{"role": "user", "content": TALK}],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    } | changes


@pytest.fixture(scope="module")
def running() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


@pytest.fixture
def server(running: MessagesServer) -> MessagesServer:
    running.reset()
    return running


def post(server: MessagesServer, sent: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/messages", json=body() if sent is None else sent, headers=BEARER | headers)


def test_the_answer_fits_the_requests_schema_and_quotes_a_real_sentence(server: MessagesServer) -> None:
    message = post(server).json()
    assert json.loads(message["content"][0]["text"]) == {"quote": "For how many?", "turn": 1, "level": 4}
    assert (message["type"], message["role"], message["stop_reason"]) == ("message", "assistant", "end_turn")
    assert message["model"] == "claude-haiku-5-5"


def test_the_first_request_with_a_prefix_writes_the_cache_and_later_ones_read_it(server: MessagesServer) -> None:
    prefix = plausible.tokens("rules " * 400)
    usages = [post(server).json()["usage"] for _ in range(2)]
    assert [usage["cache_creation_input_tokens"] for usage in usages] == [prefix, 0]
    assert [usage["cache_creation"]["ephemeral_5m_input_tokens"] for usage in usages] == [prefix, 0]
    assert [usage["cache_read_input_tokens"] for usage in usages] == [0, prefix]
    assert usages[0]["input_tokens"] == usages[1]["input_tokens"] == plausible.tokens(TALK)


def test_another_effort_or_format_is_another_cache_entry(server: MessagesServer) -> None:
    post(server)
    other = body(output_config={"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}})
    assert post(server, other).json()["usage"]["cache_read_input_tokens"] == 0


def test_what_is_short_or_unmarked_is_not_cached(server: MessagesServer) -> None:
    for system in ([{"type": "text", "text": "rules " * 400}], "rules " * 400, None):
        usage = post(server, body(system=system)).json()["usage"]
        assert usage["cache_creation_input_tokens"] == usage["cache_read_input_tokens"] == 0
    short = [{"type": "text", "text": "rules", "cache_control": {"type": "ephemeral"}}]
    usage = post(server, body(system=short)).json()["usage"]
    assert usage["cache_creation_input_tokens"] == 0
    assert usage["input_tokens"] == plausible.tokens(TALK) + plausible.tokens("rules")


def test_requests_are_kept_with_body_headers_and_connection(server: MessagesServer) -> None:
    with httpx.Client() as client:
        for _ in range(2):
            client.post(f"{server.url}/v1/messages", json=body(), headers=BEARER)
    post(server)
    first, second, third = server.requests
    assert first.body == body()
    assert first.headers["authorization"] == "Bearer sk-test"
    assert TALK in first.text
    assert first.connection == second.connection != third.connection


@pytest.mark.parametrize(
    ("behaviour", "status", "error_type", "code"),
    [
        (does.rate_limited(), 429, "rate_limit_error", None),
        (does.ramp_limited(), 429, "rate_limit_error", "ramp_limit_exceeded"),
        (does.spend_cap(), 429, "rate_limit_error", "enforced_spend_limit_reached"),
        (does.own_spend_limit(), 400, "invalid_request_error", None),
        (does.unauthorised(), 401, "authentication_error", None),
        (does.server_error(), 500, "api_error", None),
        (does.server_error(504), 504, "timeout_error", None),
        (does.overloaded(), 529, "overloaded_error", None),
    ],
)
def test_errors_have_the_apis_shape(
    server: MessagesServer, behaviour: does.Fault, status: int, error_type: str, code: str | None
) -> None:
    server.enqueue(behaviour)
    response = post(server)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, error_type)
    assert error.get("details") == (None if code is None else {"error_code": code})
    assert response.headers["request-id"] == response.json()["request_id"]


def test_limits_are_told_in_the_headers(server: MessagesServer) -> None:
    server.enqueue(does.rate_limited("12"), does.spend_cap())
    limited, capped, good = post(server).headers, post(server).headers, post(server).headers
    assert limited["retry-after"] == "12"
    assert limited["anthropic-ratelimit-requests-remaining"] == "0"
    assert "retry-after" not in capped
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        assert {f"anthropic-ratelimit-{kind}-{part}" for part in ("limit", "remaining", "reset")} <= good.keys()


def test_a_request_without_a_bearer_key_is_refused(server: MessagesServer) -> None:
    response = httpx.post(f"{server.url}/v1/messages", json=body(), headers={"x-api-key": "sk-test"})
    assert response.status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0},
        {"thinking": {"type": "enabled", "budget_tokens": 100}},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
        {
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"list": {"type": "array", "items": {"type": "integer", "minimum": 1}}},
                    },
                }
            }
        },
    ],
)
def test_what_the_api_refuses_is_refused_here(server: MessagesServer, changes: dict[str, Any]) -> None:
    response = post(server, body(**changes))
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_queue_then_rules_then_script_then_default_decide(server: MessagesServer) -> None:
    server.enqueue(does.said("queued"))
    server.when("Two.", does.said("by rule"), times=1)
    texts = [post(server).json()["content"][0]["text"] for _ in range(2)]
    assert texts == ["queued", "by rule"]
    assert post(server, body(messages=[{"role": "user", "content": "Two."}], output_config=None)).json()["content"] == [
        {"type": "text", "text": "Very well."}
    ]
    assert server.served == {"said": 2, "answer": 1}


def test_a_script_may_decide_by_the_request() -> None:
    def script(received: Received) -> does.Behaviour | None:
        return does.overloaded() if received.body["model"] == "claude-opus-5-5" else None

    with MessagesServer(script=script, default=does.said("fine")) as scripted:
        assert post(scripted, body(model="claude-opus-5-5")).status_code == 529
        assert post(scripted).json()["content"][0]["text"] == "fine"


def test_refusals_cuts_and_thinking_look_like_the_apis(server: MessagesServer) -> None:
    server.enqueue(does.refusal("bio"), does.max_tokens(), does.thinking_first(), does.all_thinking())
    refused, cut, thought, silent = (post(server).json() for _ in range(4))
    assert (refused["stop_reason"], refused["content"]) == ("refusal", [])
    assert refused["stop_details"] == {"type": "refusal", "category": "bio", "explanation": None}
    assert cut["stop_reason"] == "max_tokens"
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut["content"][0]["text"])
    assert [block["type"] for block in thought["content"]] == ["thinking", "text"]
    assert thought["usage"]["output_tokens_details"] == {"thinking_tokens": 120}
    assert [block["type"] for block in silent["content"]] == ["thinking"]


@pytest.mark.parametrize("behaviour", [does.html(), does.broken_json(), does.missing_fields()], ids=lambda b: b.name)
def test_bodies_of_any_kind_come_with_status_200(server: MessagesServer, behaviour: does.Raw) -> None:
    server.enqueue(behaviour)
    response = post(server)
    assert (response.status_code, response.content) == (200, behaviour.body)
    assert response.headers["content-type"] == behaviour.content_type


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (does.Cut("nothing"), httpx.RemoteProtocolError),
        (does.Cut("headers"), httpx.RemoteProtocolError),
        (does.Cut("body"), httpx.RemoteProtocolError),
        (does.Hang(), httpx.ReadTimeout),
    ],
    ids=lambda value: value.name if isinstance(value, (does.Cut, does.Hang)) else None,
)
def test_connections_are_cut_or_left_hanging(
    server: MessagesServer, behaviour: does.Behaviour, error: type[Exception]
) -> None:
    server.enqueue(behaviour)
    with pytest.raises(error):
        httpx.post(f"{server.url}/v1/messages", json=body(), headers=BEARER, timeout=httpx.Timeout(5, read=0.1))


def test_a_dripped_answer_is_the_same_answer(server: MessagesServer) -> None:
    plain = post(server).json()
    server.enqueue(does.Drip("headers", every_s=0, bytes_at_once=7))
    assert post(server).json()["content"] == plain["content"]


def test_two_hundred_connections_are_served_at_a_time() -> None:
    with MessagesServer(latency_s=0.3) as slow, httpx.Client(limits=httpx.Limits(max_connections=None)) as client:
        client.headers.update(BEARER)
        with ThreadPoolExecutor(200) as threads:
            statuses = list(
                threads.map(lambda _: client.post(f"{slow.url}/v1/messages", json=body()).status_code, range(200))
            )
    assert statuses == [200] * 200
    assert 1 < slow.max_in_flight <= 200
    assert slow.in_flight == 0


def test_a_stopped_server_refuses_and_comes_back_on_its_port() -> None:
    server = MessagesServer(default=does.said("here"))
    with server:
        url = server.url
        assert post(server).status_code == 200
    with pytest.raises(httpx.ConnectError):
        post(server)
    server.stop()
    with server:
        assert server.url == url
        assert post(server).status_code == 200


def test_it_runs_as_a_program_with_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps(
            {
                "queue": [{"do": "overloaded"}],
                "rules": [{"contains": "table", "do": "rate_limited", "retry_after": "3", "times": 1}],
                "default": {"do": "graded", "level": 1},
            }
        )
    )
    command = [sys.executable, "-m", "tests.servers.messages_api", "--latency", "0.01", "--script", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        with httpx.Client(base_url=url, headers=BEARER) as client:
            responses = [client.post("/v1/messages", json=body()) for _ in range(3)]
            stats = client.get("/stats").json()
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0
    assert [response.status_code for response in responses] == [529, 429, 200]
    assert responses[1].headers["retry-after"] == "3"
    assert json.loads(responses[2].json()["content"][0]["text"])["level"] == 1
    assert stats["served"] == {"overloaded": 1, "rate_limited": 1, "graded": 1}


def test_a_caller_that_goes_away_does_no_harm(server: MessagesServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-le")
    assert post(server).status_code == 200


def test_the_script_can_be_changed_while_it_runs(server: MessagesServer) -> None:
    def control(script: dict[str, Any]) -> None:
        assert httpx.post(f"{server.url}/control", json=script).status_code == 200

    control({"default": {"do": "overloaded"}})
    assert post(server).status_code == 529
    control({"default": {"do": "answer"}, "limits": {"requests": 1, "burst_s": 60}})
    assert [post(server).status_code for _ in range(2)] == [200, 429]
    control({"limits": None, "latency": 0.0, "reset": True})
    assert post(server).status_code == 200
    assert server.stats()["served"] == {"answer": 1}


def test_stats_tell_what_was_done_second_by_second(server: MessagesServer) -> None:
    server.enqueue(does.rate_limited())
    usages = [post(server).json().get("usage", {}) for _ in range(3)]
    stats = httpx.get(f"{server.url}/stats").json()
    seconds = stats["per_second"].values()
    assert sum(second.get("rate_limited", 0) for second in seconds) == 1
    assert sum(second.get("answer", 0) for second in seconds) == 2
    output = sum(usage.get("output_tokens", 0) for usage in usages)
    assert sum(second.get("output_tokens", 0) for second in seconds) == stats["tokens"]["output_tokens"] == output


def test_only_so_many_requests_are_kept() -> None:
    with MessagesServer(keep=1) as frugal:
        for _ in range(3):
            post(frugal)
        assert len(frugal.requests) == 1
        assert frugal.stats()["requests"] == 3
