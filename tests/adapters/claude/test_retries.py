"""Quick retries as a worker makes them, counted where they arrive: the gateway, the real SDK, a local server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from qa_worker.adapters.claude.judge import AsyncClaudeJudge
from qa_worker.adapters.claude.metered import MeteredClaudeJudge
from qa_worker.application.gateway import Gateway
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Admission, GateStatus, Need, Permit, Verdict
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.domain.grading_samples import CALL, RUBRIC
from tests.fakes import AnyRoom
from tests.servers import behaviours as does
from tests.servers.messages_api import MessagesServer

REQUEST = JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE, "claude-haiku-5-5"), "workspace")


@dataclass
class Counting(AnyRoom):
    """A budget, limiter and gate that let everything through, and count."""

    admission: Admission = field(default_factory=Admission)
    seen: Counter[str] = field(default_factory=Counter)

    async def exceeded(self, workspace: str) -> None:
        self.seen["budget"] += 1

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit:
        self.seen["reserve"] += 1
        return Permit(model, need, shared=True)

    async def settle(self, permit: Permit, usage: Usage | None) -> None:
        self.seen["settle"] += 1


@dataclass
class Door:
    """The gate's side of it."""

    counting: Counting

    async def admit(self, service: str) -> Admission:
        self.counting.seen["admit"] += 1
        return self.counting.admission

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        self.counting.seen[f"report {verdict.value}"] += 1

    async def status(self, service: str) -> GateStatus:
        raise AssertionError("people ask this")


@pytest.fixture(scope="module")
def running() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


@pytest.fixture
def server(running: MessagesServer) -> MessagesServer:
    running.reset()
    return running


def _graded(server: MessagesServer, counting: Counting) -> JudgeAnswer:
    async def at_once(_seconds: float) -> None:
        await asyncio.sleep(0)

    async def grade() -> JudgeAnswer:
        judge = AsyncClaudeJudge("sk-test", base_url=server.url)
        gateway = Gateway(
            MeteredClaudeJudge(judge), budget=counting, gate=Door(counting), limiter=counting, sleep=at_once
        )
        answer = await gateway.grade(REQUEST)
        await judge.aclose()
        return answer

    return asyncio.run(grade())


@pytest.mark.parametrize(
    "behaviour",
    [does.server_error(500), does.server_error(504), does.Cut("nothing"), does.Cut("headers")],
    ids=lambda value: value.name,
)
def test_a_fault_that_passes_at_once_is_tried_again_in_place(server: MessagesServer, behaviour: does.Behaviour) -> None:
    server.enqueue(behaviour, behaviour)
    counting = Counting()

    assert isinstance(_graded(server, counting).result, Assessment)
    assert len(server.requests) == 3
    steps = ("budget", "reserve", "admit", "settle")
    assert [counting.seen[step] for step in steps] == [3] * 4
    assert (counting.seen["report down"], counting.seen["report up"]) == (2, 1)


def test_a_probe_that_fails_is_one_request(server: MessagesServer) -> None:
    server.enqueue(*[does.server_error(503)] * 3)
    counting = Counting(Admission(probe="lease"))

    answer = _graded(server, counting)

    assert isinstance(answer.result, Failure)
    assert (answer.result.code, len(server.requests), counting.seen["report down"]) == ("http_503", 1, 1)


def test_an_answer_that_broke_off_may_be_billed_and_is_not_asked_for_again(server: MessagesServer) -> None:
    server.enqueue(does.Cut("body"))

    answer = _graded(server, Counting())

    assert isinstance(answer.result, Failure)
    assert (answer.result.code, len(server.requests)) == ("cut_answer", 1)
