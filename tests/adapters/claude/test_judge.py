from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from qa_worker.adapters.claude.client import MAX_ANSWER_BYTES, Timeouts
from qa_worker.adapters.claude.judge import AsyncClaudeJudge
from qa_worker.application.judging import JudgeAnswer, JudgeRequest, RateLimits
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.prompt import system_text
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.domain.grading_samples import AGENT, CALL, RUBRIC, saying
from tests.servers import behaviours as does
from tests.servers.messages_api import MessagesServer

SPEC = JudgeSpec(JudgeKind.CLAUDE, model="claude-sonnet-5-5", effort="medium", max_tokens=2_500)
REQUEST = JudgeRequest(call=CALL, rubric=RUBRIC, evidence=Evidence(), spec=SPEC, key="workspace-1")


@pytest.fixture(scope="module")
def running() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


@pytest.fixture
def server(running: MessagesServer) -> MessagesServer:
    running.reset()
    return running


@dataclass
class Blocking:
    """A judge with a loop of its own."""

    judge: AsyncClaudeJudge
    loop: asyncio.Runner

    def grade(self, request: JudgeRequest) -> JudgeAnswer:
        return self.loop.run(self.judge.grade(request))

    def grade_together(self, requests: list[JudgeRequest]) -> list[JudgeAnswer]:
        async def together() -> list[JudgeAnswer]:
            return await asyncio.gather(*map(self.judge.grade, requests))

        return self.loop.run(together())

    def close(self) -> None:
        self.loop.run(self.judge.aclose())


@contextmanager
def judging(
    url: str, *, key: str = "sk-test", timeouts: Timeouts | None = None, connections: int = 64
) -> Iterator[Blocking]:
    with asyncio.Runner() as loop:
        judge = AsyncClaudeJudge(key, base_url=url, timeouts=timeouts, connections=connections)
        blocking = Blocking(judge, loop)
        yield blocking
        blocking.close()


@pytest.fixture(scope="module")
def shared(running: MessagesServer) -> Iterator[Blocking]:
    with judging(running.url) as blocking:
        yield blocking


@pytest.fixture
def judge(shared: Blocking) -> Blocking:
    return shared


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


def failure(answer: JudgeAnswer) -> Failure:
    assert isinstance(answer.result, Failure)
    return answer.result


def test_a_call_is_graded(judge: Blocking, server: MessagesServer) -> None:
    server.enqueue(does.graded(2))
    answer = judge.grade(REQUEST)
    assert isinstance(answer.result, Assessment)
    assert [(level.criterion, level.level) for level in answer.result.levels] == [("accuracy", 2), ("policy", 2)]
    assert answer.result.findings[0].quote == CALL.transcript.turns[4].text
    assert (answer.model, answer.raw) == ("claude-sonnet-5-5", "")
    assert answer.request_id is not None
    assert answer.request_id.startswith("req_")


def test_the_request_is_what_the_api_asks_for(judge: Blocking, server: MessagesServer) -> None:
    judge.grade(REQUEST)
    received = server.requests[0]
    assert received.headers["authorization"] == "Bearer sk-test"
    assert received.headers["x-stainless-retry-count"] == "0"
    assert set(received.body) == {"model", "max_tokens", "system", "messages", "output_config"}
    assert (received.body["model"], received.body["max_tokens"]) == ("claude-sonnet-5-5", 2_500)
    assert received.body["system"] == [
        {"type": "text", "text": system_text(RUBRIC, AGENT), "cache_control": {"type": "ephemeral"}}
    ]
    assert [message["role"] for message in received.body["messages"]] == ["user"]
    assert "A table for two at eight, please." in received.text
    assert received.body["output_config"]["effort"] == "medium"
    assert received.body["output_config"]["format"]["type"] == "json_schema"


def test_what_the_spec_leaves_open_has_a_default(judge: Blocking, server: MessagesServer) -> None:
    judge.grade(JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE), "workspace-1"))
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"]) == ("claude-haiku-5-5", 3_000)
    assert body["output_config"]["effort"] == "low"


def test_the_static_part_is_written_to_the_cache_once_and_read_after() -> None:
    with MessagesServer() as fresh, judging(fresh.url) as judge:
        first, second = judge.grade(REQUEST).usage, judge.grade(REQUEST).usage
    assert first.cache_write_5m_tokens == second.cache_read_tokens > 512
    assert first.cache_read_tokens == second.cache_write_5m_tokens == 0
    assert first.input_tokens == second.input_tokens > 0


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        (does.rate_limited("7"), FailureKind.RATE_LIMITED, "http_429"),
        (does.ramp_limited(), FailureKind.RATE_LIMITED, "ramp_limit_exceeded"),
        (does.spend_cap(), FailureKind.SPEND_CAP, "enforced_spend_limit_reached"),
        (does.own_spend_limit(), FailureKind.SPEND_CAP, "http_400"),
        (does.unauthorised(), FailureKind.BLOCKED, "http_401"),
        (does.overloaded(), FailureKind.OVERLOADED, "http_529"),
        (does.server_error(500), FailureKind.TRANSIENT, "http_500"),
        (does.server_error(504), FailureKind.TRANSIENT, "http_504"),
        (does.Cut("nothing"), FailureKind.TRANSIENT, "connection"),
        (does.Cut("headers"), FailureKind.TRANSIENT, "connection"),
        (does.Cut("body"), FailureKind.TRANSIENT, "cut_answer"),
        (does.html(), FailureKind.TRANSIENT, "bad_response"),
        (does.broken_json(), FailureKind.TRANSIENT, "bad_response"),
        (does.missing_fields(), FailureKind.TRANSIENT, "bad_response"),
        (does.refusal("cyber"), FailureKind.UNREADABLE, "refusal:cyber"),
        (does.max_tokens(), FailureKind.UNREADABLE, "max_tokens"),
        (does.all_thinking(), FailureKind.UNREADABLE, "max_tokens"),
        (does.said("It went well."), FailureKind.UNREADABLE, "answer_no_json"),
        (does.Raw("redirect", b"", 307, headers={"location": "http://127.0.0.1:1/"}), FailureKind.BLOCKED, "http_307"),
    ],
    ids=lambda value: value.name if hasattr(value, "name") and not isinstance(value, FailureKind) else None,
)
def test_every_fault_is_a_failure_and_is_asked_for_once(
    judge: Blocking, server: MessagesServer, behaviour: does.Behaviour, kind: FailureKind, code: str
) -> None:
    server.enqueue(behaviour)
    answer = judge.grade(REQUEST)
    assert (failure(answer).kind, failure(answer).code) == (kind, code)
    assert len(server.requests) == 1
    assert "table for two" not in repr(failure(answer))


def test_the_providers_wait_and_request_id_are_handed_on(judge: Blocking, server: MessagesServer) -> None:
    server.enqueue(does.rate_limited("7"))
    answer = judge.grade(REQUEST)
    assert failure(answer).retry_after_s == 7.0
    assert failure(answer).request_id == answer.request_id == "req_000000000000000000000001"


def test_what_was_billed_for_an_unusable_answer_is_kept(judge: Blocking, server: MessagesServer) -> None:
    server.enqueue(does.all_thinking())
    usage = judge.grade(REQUEST).usage
    assert usage.thinking_tokens == usage.output_tokens == 3_000
    assert usage.prompt_tokens > 512


def test_a_thinking_block_before_the_answer_is_passed_over(judge: Blocking, server: MessagesServer) -> None:
    server.enqueue(does.thinking_first())
    answer = judge.grade(REQUEST)
    assert isinstance(answer.result, Assessment)
    assert answer.usage.thinking_tokens == 120


def test_a_server_that_hangs_is_left_at_the_read_timeout(server: MessagesServer) -> None:
    server.enqueue(does.Hang())
    with judging(server.url, timeouts=Timeouts(read_s=0.1)) as hasty:
        assert failure(hasty.grade(REQUEST)).code == "read_timeout"
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", [does.Drip("headers"), does.Drip("body"), does.Hang()], ids=lambda b: b.name)
def test_a_dripping_server_is_cut_at_the_deadline(server: MessagesServer, behaviour: does.Behaviour) -> None:
    # every byte comes in time for the read timeout; all of them would take half a minute
    server.enqueue(behaviour)
    with judging(server.url, timeouts=Timeouts(total_s=0.3)) as hasty:
        answer = hasty.grade(REQUEST)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "deadline")


def test_a_server_that_drips_fast_enough_is_heard_out(judge: Blocking, server: MessagesServer) -> None:
    server.enqueue(does.Drip("headers", every_s=0.001, bytes_at_once=200))
    assert isinstance(judge.grade(REQUEST).result, Assessment)


def test_a_server_that_is_away_is_a_connection_fault() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # bound and not listening: connections are refused
        with judging(f"http://127.0.0.1:{taken.getsockname()[1]}") as judge:
            answer = judge.grade(REQUEST)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "connection")
    assert "ConnectionRefusedError" in failure(answer).message
    assert (answer.usage, answer.limits) == (Usage(), None)


def test_a_server_that_takes_no_connection_is_left_at_the_connect_timeout() -> None:
    # nobody ever accepts: the handshake of TLS gets no answer
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        with judging(url, timeouts=Timeouts(connect_s=0.05)) as judge:
            assert failure(judge.grade(REQUEST)).code == "connect_timeout"


@pytest.mark.parametrize(
    "url", ["htp://claude", "http://", "http://claude:99999", "http://" + "a" * 300, "http://[::1"]
)
def test_an_address_that_is_none_is_rejected(url: str) -> None:
    with judging(url) as judge:
        answer = judge.grade(REQUEST)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.BLOCKED, "bad_address")


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n{}",
        b"HTTP/1.1 502 Oh\r\ncontent-length: 50\r\n\r\n{}",
    ],
    ids=["ssh", "bad_status", "bad_length", "long_header", "bad_chunk", "cut_error"],
)
def test_what_is_not_http_is_a_connection_fault(reply: bytes) -> None:
    answer, asked = graded_by_bytes(reply)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "connection")
    assert asked == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}",
    ],
    ids=["cut_chunk", "cut_body"],
)
def test_an_answer_that_began_and_broke_is_told_apart(reply: bytes) -> None:
    answer, _ = graded_by_bytes(reply)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "cut_answer")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n" + b"a" * (MAX_ANSWER_BYTES + 1),
        b"HTTP/1.1 500 Oh\r\ncontent-length: 999999999\r\n\r\n" + b"a" * (MAX_ANSWER_BYTES + 1),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 999999999\r\n\r\nabcd",
    ],
    ids=["long", "long_error", "compressed"],
)
def test_an_answer_that_is_too_long_is_not_read_to_its_end(reply: bytes) -> None:
    answer, asked = graded_by_bytes(reply)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "bad_response")
    assert asked == 1


def graded_by_bytes(reply: bytes) -> tuple[JudgeAnswer, int]:
    """The answer where the server says exactly this and no more, and how often it was asked."""
    conversations: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        if reply.endswith(b"{}"):
            writer.write_eof()
        # ends when the client does
        while await reader.read(65_536):
            pass
        writer.transport.abort()

    async def run() -> JudgeAnswer:
        server = await asyncio.start_server(
            lambda reader, writer: conversations.append(asyncio.create_task(converse(reader, writer))), "127.0.0.1", 0
        )
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        judge = AsyncClaudeJudge("sk-test", base_url=url)
        answer = await judge.grade(REQUEST)
        await judge.aclose()
        await asyncio.gather(*conversations, return_exceptions=True)
        server.close()
        await asyncio.sleep(0)
        return answer

    return asyncio.run(run()), len(conversations)


def test_compressed_answers_are_not_asked_for(judge: Blocking, server: MessagesServer) -> None:
    judge.grade(REQUEST)
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_limits_come_with_answers_and_with_refusals(judge: Blocking, server: MessagesServer) -> None:
    told = RateLimits(1_000, 1_000, 2_000_000, 2_000_000, 400_000, 400_000)
    server.enqueue(does.graded(3), does.rate_limited("7"), does.html())
    assert judge.grade(REQUEST).limits == told
    assert judge.grade(REQUEST).limits == replace(told, requests_left=0)
    assert judge.grade(REQUEST).limits is None


def test_a_proxy_of_the_environment_is_not_asked(server: MessagesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with judging(server.url) as judge:
        assert isinstance(judge.grade(REQUEST).result, Assessment)


def test_a_wait_for_a_free_connection_is_bounded() -> None:
    async def run(server: MessagesServer) -> tuple[JudgeAnswer, JudgeAnswer]:
        judge = AsyncClaudeJudge("sk-test", base_url=server.url, timeouts=Timeouts(pool_s=0.05), connections=1)
        first = asyncio.create_task(judge.grade(REQUEST))
        await until(lambda: len(server.requests) == 1)
        second = await judge.grade(REQUEST)
        await asyncio.to_thread(server.stop)
        answers = await first, second
        await judge.aclose()
        return answers

    with MessagesServer(default=does.Hang()) as fresh:
        first, second = asyncio.run(run(fresh))
    assert failure(second).code == "pool_timeout"
    assert failure(first).code == "connection"


def test_a_cancelled_call_gives_its_connection_back() -> None:
    async def run(server: MessagesServer) -> JudgeAnswer:
        judge = AsyncClaudeJudge("sk-test", base_url=server.url, connections=1)
        server.enqueue(does.Hang())
        hanging = asyncio.create_task(judge.grade(REQUEST))
        await until(lambda: len(server.requests) == 1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        answer = await judge.grade(REQUEST)
        await judge.aclose()
        return answer

    with MessagesServer() as fresh:
        assert isinstance(asyncio.run(run(fresh)).result, Assessment)


def test_hundreds_wait_at_once_over_kept_connections() -> None:
    with MessagesServer(latency_s=0.2) as fresh, judging(fresh.url, connections=150) as judge:
        answers = judge.grade_together([REQUEST] * 300)
        assert all(isinstance(answer.result, Assessment) for answer in answers)
        assert 1 < fresh.max_in_flight <= 150
        assert fresh.stats()["connections"] <= 150


def test_one_judge_serves_loop_after_loop(server: MessagesServer) -> None:
    judge = AsyncClaudeJudge("sk-test", base_url=server.url)

    async def graded() -> JudgeAnswer:
        answer = await judge.grade(REQUEST)
        await judge.aclose()
        return answer

    for _ in range(2):
        assert isinstance(asyncio.run(graded()).result, Assessment)
    assert [received.connection for received in server.requests] == sorted({r.connection for r in server.requests})


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(judge: Blocking, server: MessagesServer) -> None:
    judge.grade(REQUEST)
    child = os.fork()
    if child == 0:
        exit_code = 1
        try:
            with asyncio.Runner() as loop:
                exit_code = 0 if isinstance(loop.run(judge.judge.grade(REQUEST)).result, Assessment) else 2
        finally:
            os._exit(exit_code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    judge.grade(REQUEST)
    parent_before, forked, parent_after = (received.connection for received in server.requests)
    assert parent_before == parent_after != forked


def test_an_empty_base_url_in_the_environment_is_the_public_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "")

    async def base_url(given: str | None) -> str:
        judge = AsyncClaudeJudge("sk-test", base_url=given)
        url = judge._clients.get().base_url
        await judge.aclose()
        return url

    for empty in (None, "", " "):
        assert asyncio.run(base_url(empty)) == "https://api.anthropic.com"


@pytest.mark.parametrize("key", ["", "  ", "sk-ünlike", "sk-\nX-Header: 1", "sk-\x7f"])
def test_a_key_that_cannot_be_one_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        AsyncClaudeJudge(key)


def test_a_key_read_from_a_file_may_end_in_a_line_break(server: MessagesServer) -> None:
    with judging(server.url, key="sk-test\n") as judge:
        assert isinstance(judge.grade(REQUEST).result, Assessment)
    assert server.requests[0].headers["authorization"] == "Bearer sk-test"


def test_a_closed_judge_can_be_used_again(server: MessagesServer) -> None:
    with judging(server.url) as judge:
        judge.close()
        judge.grade(REQUEST)
        judge.close()
        judge.close()
        assert isinstance(judge.grade(REQUEST).result, Assessment)


def test_what_cannot_be_sent_as_utf_8_is_sent_without_it(judge: Blocking, server: MessagesServer) -> None:
    halves = replace(REQUEST, call=replace(CALL, transcript=saying("half a \ud83d smile", "\x00 yes")))
    assert isinstance(judge.grade(halves).result, Assessment)
    assert "half a \ufffd smile" in server.requests[0].text
    json.dumps(server.requests[0].text, ensure_ascii=False).encode()
