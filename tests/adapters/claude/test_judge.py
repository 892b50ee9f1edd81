from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from qa_worker.adapters.claude.client import Timeouts
from qa_worker.adapters.claude.judge import DEFAULT_SPEC, ClaudeJudge
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
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


@pytest.fixture(scope="module")
def shared(running: MessagesServer) -> Iterator[ClaudeJudge]:
    judge = ClaudeJudge("sk-test", base_url=running.url, sleep=lambda _: None)
    yield judge
    judge.close()


@pytest.fixture
def judge(shared: ClaudeJudge) -> ClaudeJudge:
    return shared


@contextmanager
def judging(server: MessagesServer, *, timeouts: Timeouts, connections: int = 4) -> Iterator[ClaudeJudge]:
    judge = ClaudeJudge(
        "sk-test", base_url=server.url, timeouts=timeouts, connections=connections, sleep=lambda _: None
    )
    yield judge
    judge.close()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


def failure(answer: JudgeAnswer) -> Failure:
    assert isinstance(answer.result, Failure)
    return answer.result


def test_a_call_is_graded(judge: ClaudeJudge, server: MessagesServer) -> None:
    server.enqueue(does.graded(2))
    answer = judge.grade(REQUEST)
    assert isinstance(answer.result, Assessment)
    assert [(level.criterion, level.level) for level in answer.result.levels] == [("accuracy", 2), ("policy", 2)]
    assert answer.result.findings[0].quote == CALL.transcript.turns[4].text
    assert (answer.model, answer.raw) == ("claude-sonnet-5-5", "")
    assert answer.request_id is not None
    assert answer.request_id.startswith("req_")


def test_the_request_is_what_the_api_asks_for(judge: ClaudeJudge, server: MessagesServer) -> None:
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


def test_what_the_spec_leaves_open_has_a_default(judge: ClaudeJudge, server: MessagesServer) -> None:
    judge.grade(JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE), "workspace-1"))
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"]) == ("claude-haiku-5-5", 3_000)
    assert body["output_config"]["effort"] == "low"
    assert DEFAULT_SPEC.max_tokens == 3_000


def test_the_static_part_is_written_to_the_cache_once_and_read_after() -> None:
    with MessagesServer() as fresh:
        judge = ClaudeJudge("sk-test", base_url=fresh.url)
        first, second = judge.grade(REQUEST).usage, judge.grade(REQUEST).usage
        judge.close()
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
        (does.unauthorised(), FailureKind.REJECTED, "http_401"),
        (does.overloaded(), FailureKind.OVERLOADED, "http_529"),
        (does.html(), FailureKind.TRANSIENT, "bad_response"),
        (does.broken_json(), FailureKind.TRANSIENT, "bad_response"),
        (does.missing_fields(), FailureKind.TRANSIENT, "bad_response"),
        (does.refusal("cyber"), FailureKind.UNREADABLE, "refusal:cyber"),
        (does.max_tokens(), FailureKind.UNREADABLE, "max_tokens"),
        (does.all_thinking(), FailureKind.UNREADABLE, "max_tokens"),
        (does.said("It went well."), FailureKind.UNREADABLE, "answer_no_json"),
        (does.Raw("redirect", b"", 307, headers={"location": "http://127.0.0.1:1/"}), FailureKind.REJECTED, "http_307"),
    ],
    ids=lambda value: value.name if hasattr(value, "name") and not isinstance(value, FailureKind) else None,
)
def test_every_fault_is_a_failure_and_is_asked_for_once(
    judge: ClaudeJudge, server: MessagesServer, behaviour: does.Behaviour, kind: FailureKind, code: str
) -> None:
    server.enqueue(behaviour)
    answer = judge.grade(REQUEST)
    assert (failure(answer).kind, failure(answer).code) == (kind, code)
    assert len(server.requests) == 1
    assert "table for two" not in repr(failure(answer))


def test_the_providers_wait_and_request_id_are_handed_on(judge: ClaudeJudge, server: MessagesServer) -> None:
    server.enqueue(does.rate_limited("7"))
    answer = judge.grade(REQUEST)
    assert failure(answer).retry_after_s == 7.0
    assert failure(answer).request_id == answer.request_id == "req_000000000000000000000001"


def test_what_was_billed_for_an_unusable_answer_is_kept(judge: ClaudeJudge, server: MessagesServer) -> None:
    server.enqueue(does.all_thinking())
    usage = judge.grade(REQUEST).usage
    assert usage.thinking_tokens == usage.output_tokens == 3_000
    assert usage.prompt_tokens > 512


def test_a_thinking_block_before_the_answer_is_passed_over(judge: ClaudeJudge, server: MessagesServer) -> None:
    server.enqueue(does.thinking_first())
    answer = judge.grade(REQUEST)
    assert isinstance(answer.result, Assessment)
    assert answer.usage.thinking_tokens == 120


@pytest.mark.parametrize(
    "behaviour",
    [does.server_error(500), does.server_error(504), does.Cut("nothing"), does.Cut("headers"), does.Cut("body")],
    ids=lambda value: value.name,
)
def test_a_fault_that_passes_at_once_is_tried_again_in_place(
    judge: ClaudeJudge, server: MessagesServer, behaviour: does.Behaviour
) -> None:
    server.enqueue(behaviour, behaviour)
    assert isinstance(judge.grade(REQUEST).result, Assessment)
    assert len(server.requests) == 3


def test_after_three_tries_the_row_decides(judge: ClaudeJudge, server: MessagesServer) -> None:
    server.enqueue(*[does.server_error(503)] * 3)
    assert failure(judge.grade(REQUEST)).code == "http_503"
    assert len(server.requests) == 3


def test_a_server_that_hangs_is_left_at_the_read_timeout(server: MessagesServer) -> None:
    server.enqueue(does.Hang())
    with judging(server, timeouts=Timeouts(read_s=0.1)) as hasty:
        assert failure(hasty.grade(REQUEST)).code == "read_timeout"
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", [does.Drip("headers"), does.Drip("body"), does.Hang()], ids=lambda b: b.name)
def test_a_dripping_server_is_cut_at_the_deadline(server: MessagesServer, behaviour: does.Behaviour) -> None:
    # every byte comes in time for the read timeout; all of them would take half a minute
    server.enqueue(behaviour)
    with judging(server, timeouts=Timeouts(total_s=0.3)) as hasty:
        answer = hasty.grade(REQUEST)
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "deadline")


def test_a_server_that_drips_fast_enough_is_heard_out(judge: ClaudeJudge, server: MessagesServer) -> None:
    server.enqueue(does.Drip("headers", every_s=0.001, bytes_at_once=200))
    assert isinstance(judge.grade(REQUEST).result, Assessment)


def test_the_deadline_holds_over_all_tries_together(server: MessagesServer) -> None:
    server.enqueue(does.server_error(500), does.Hang())
    with judging(server, timeouts=Timeouts(total_s=0.3)) as hasty:
        assert failure(hasty.grade(REQUEST)).code == "deadline"


def test_a_server_that_is_away_is_a_connection_fault() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # bound and not listening: connections are refused
        judge = ClaudeJudge("sk-test", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", sleep=lambda _: None)
        answer = judge.grade(REQUEST)
        judge.close()
    assert (failure(answer).kind, failure(answer).code) == (FailureKind.TRANSIENT, "connection")
    assert "ConnectionRefusedError" in failure(answer).message
    assert answer.usage == Usage()


def test_a_wait_for_a_free_connection_is_bounded() -> None:
    with (
        ThreadPoolExecutor(1) as other,
        MessagesServer(default=does.Hang()) as fresh,
        judging(fresh, timeouts=Timeouts(pool_s=0.05), connections=1) as judge,
    ):
        first = other.submit(judge.grade, REQUEST)
        wait_until(lambda: len(fresh.requests) == 1)
        assert failure(judge.grade(REQUEST)).code == "pool_timeout"
        fresh.stop()
        assert failure(first.result(timeout=10)).code == "connection"


def test_one_judge_serves_many_threads_over_kept_connections() -> None:
    with MessagesServer(latency_s=0.02) as fresh:
        judge = ClaudeJudge("sk-test", base_url=fresh.url, connections=16)
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(judge.grade, [REQUEST] * 64))
        judge.close()
        assert all(isinstance(answer.result, Assessment) for answer in answers)
        assert fresh.stats()["connections"] <= 16


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(judge: ClaudeJudge, server: MessagesServer) -> None:
    judge.grade(REQUEST)
    child = os.fork()
    if child == 0:
        exit_code = 1
        try:
            exit_code = 0 if isinstance(judge.grade(REQUEST).result, Assessment) else 2
        finally:
            os._exit(exit_code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    judge.grade(REQUEST)
    parent_before, forked, parent_after = (received.connection for received in server.requests)
    assert parent_before == parent_after != forked


def test_an_empty_base_url_in_the_environment_is_the_public_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "")
    for empty in (None, "", " "):
        judge = ClaudeJudge("sk-test", base_url=empty)
        assert str(judge._clients.get().base_url) == "https://api.anthropic.com"
        judge.close()


@pytest.mark.parametrize("key", ["", "  ", "sk-ünlike", "sk-\nX-Header: 1", "sk-\x7f"])
def test_a_key_that_cannot_be_one_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        ClaudeJudge(key)


def test_a_key_read_from_a_file_may_end_in_a_line_break(server: MessagesServer) -> None:
    judge = ClaudeJudge("sk-test\n", base_url=server.url)
    assert isinstance(judge.grade(REQUEST).result, Assessment)
    judge.close()
    assert server.requests[0].headers["authorization"] == "Bearer sk-test"


def test_a_closed_judge_can_be_used_again(server: MessagesServer) -> None:
    judge = ClaudeJudge("sk-test", base_url=server.url)
    judge.close()
    judge.grade(REQUEST)
    judge.close()
    judge.close()
    assert isinstance(judge.grade(REQUEST).result, Assessment)
    judge.close()


def test_the_client_is_built_once_by_whoever_comes_first(server: MessagesServer) -> None:
    judge = ClaudeJudge("sk-test", base_url=server.url)
    together = threading.Barrier(8)

    def client() -> object:
        together.wait()
        return judge._clients.get()

    with ThreadPoolExecutor(8) as threads:
        clients = list(threads.map(lambda _: client(), range(8)))
    judge.close()
    assert len({id(client) for client in clients}) == 1


def test_what_cannot_be_sent_as_utf_8_is_sent_without_it(judge: ClaudeJudge, server: MessagesServer) -> None:
    halves = replace(REQUEST, call=replace(CALL, transcript=saying("half a \ud83d smile", "\x00 yes")))
    assert isinstance(judge.grade(halves).result, Assessment)
    assert "half a \ufffd smile" in server.requests[0].text
    json.dumps(server.requests[0].text, ensure_ascii=False).encode()
