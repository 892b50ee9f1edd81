from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from qa_worker.adapters.claude import request
from qa_worker.adapters.claude.judge import AsyncClaudeJudge
from qa_worker.adapters.claude.metered import MeteredClaudeJudge
from qa_worker.adapters.claude.priming import WARM_FOR_S, Priming
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.domain.grading_samples import CALL, RUBRIC
from tests.servers.behaviours import rate_limited
from tests.servers.messages_api import MessagesServer

REQUEST = JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE), "workspace-1")
OTHER = replace(REQUEST, rubric=replace(RUBRIC, guidance="Callers are hungry."))

GOOD = JudgeAnswer(Assessment(levels=()), Usage(input_tokens=900, cache_write_5m_tokens=2_000), "m", None, "")
CUT = JudgeAnswer(Failure(FailureKind.UNREADABLE, "max_tokens", ""), Usage(input_tokens=900), "m", None, "")
DOWN = JudgeAnswer(Failure(FailureKind.OVERLOADED, "http_529", ""), Usage(), "m", None, "")


@dataclass
class Slow:
    """A judge whose answers come when they are given. Implements the port `AsyncJudge`."""

    waiting: list[asyncio.Future[JudgeAnswer]] = field(default_factory=list)
    asked_twice: asyncio.Event = field(default_factory=asyncio.Event)

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        answer: asyncio.Future[JudgeAnswer] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        if len(self.waiting) == 2:
            self.asked_twice.set()
        return await answer

    async def give(self, answer: JudgeAnswer) -> None:
        """Answer the oldest request, and let everyone go on."""
        self.waiting.pop(0).set_result(answer)
        await settled()


@dataclass
class Clock:
    at_s: float = 1_000.0

    def __call__(self) -> float:
        return self.at_s


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def run(scenario: Callable[[Slow, MeteredClaudeJudge, Clock], Awaitable[None]], *, patience_s: float = 60.0) -> None:
    async def go() -> None:
        slow, clock = Slow(), Clock()
        await scenario(slow, MeteredClaudeJudge(slow, priming=Priming(clock=clock, patience_s=patience_s)), clock)

    asyncio.run(go())


async def ask(judge: MeteredClaudeJudge, *requests: JudgeRequest) -> list[asyncio.Task[JudgeAnswer]]:
    tasks = [asyncio.create_task(judge.grade(request)) for request in requests]
    await settled()
    return tasks


async def graded_by_server(server: MessagesServer, *, primed: bool) -> list[JudgeAnswer]:
    judge = AsyncClaudeJudge("sk-test", base_url=server.url)
    asked = MeteredClaudeJudge(judge) if primed else judge
    answers = await asyncio.gather(*(asked.grade(REQUEST) for _ in range(50)))
    await judge.aclose()
    return answers


def test_of_fifty_requests_one_writes_the_cache_and_the_others_read_it() -> None:
    with MessagesServer(latency_s=0.1) as server:
        answers = asyncio.run(graded_by_server(server, primed=True))
    assert sum(answer.usage.cache_write_5m_tokens > 0 for answer in answers) == 1
    assert sum(answer.usage.cache_read_tokens > 512 for answer in answers) == 49


def test_without_priming_more_than_one_writes_it() -> None:
    with MessagesServer(latency_s=0.3) as server:
        answers = asyncio.run(graded_by_server(server, primed=False))
    assert sum(answer.usage.cache_write_5m_tokens > 0 for answer in answers) > 1


def test_if_the_first_is_refused_only_the_second_writes() -> None:
    with MessagesServer(latency_s=0.05) as server:
        server.enqueue(rate_limited(), rate_limited())
        answers = asyncio.run(graded_by_server(server, primed=True))
    assert sum(isinstance(answer.result, Failure) for answer in answers) == 2
    assert sum(answer.usage.cache_write_5m_tokens > 0 for answer in answers) == 1
    assert sum(answer.usage.cache_read_tokens > 512 for answer in answers) == 47


def test_the_others_wait_for_the_first_answer() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        tasks = await ask(judge, *[REQUEST] * 5)
        assert len(slow.waiting) == 1
        await slow.give(GOOD)
        assert len(slow.waiting) == 4
        for _ in range(4):
            await slow.give(GOOD)
        assert all(task.result() == GOOD for task in tasks)

    run(scenario)


def test_other_prefixes_dont_wait() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        tasks = await ask(judge, REQUEST, OTHER, REQUEST)
        assert len(slow.waiting) == 2
        for _ in range(3):
            await slow.give(GOOD)
        assert all(task.done() for task in tasks)

    run(scenario)


def test_after_a_failure_the_next_goes_first() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        tasks = await ask(judge, *[REQUEST] * 4)
        await slow.give(DOWN)
        assert (len(slow.waiting), tasks[0].result()) == (1, DOWN)
        await slow.give(GOOD)
        assert len(slow.waiting) == 2
        await slow.give(GOOD)
        await slow.give(GOOD)
        assert all(task.done() for task in tasks)

    run(scenario)


def test_an_answer_that_cannot_be_used_has_filled_the_cache_too() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        tasks = await ask(judge, REQUEST, REQUEST, REQUEST)
        await slow.give(CUT)
        assert len(slow.waiting) == 2
        await slow.give(GOOD)
        await slow.give(GOOD)
        assert all(task.done() for task in tasks)

    run(scenario)


def test_one_who_is_called_off_hands_its_turn_on() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        first, second, third = await ask(judge, REQUEST, REQUEST, REQUEST)
        second.cancel()
        first.cancel()
        await settled()
        slow.waiting.pop(0)
        assert len(slow.waiting) == 1
        await slow.give(GOOD)
        assert third.result() == GOOD

    run(scenario)


def test_nobody_waits_longer_than_patience_lasts() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        tasks = await ask(judge, REQUEST, REQUEST)
        await slow.asked_twice.wait()
        await slow.give(GOOD)
        await slow.give(GOOD)
        assert all(task.done() for task in tasks)

    run(scenario, patience_s=0.01)


def test_a_prefix_is_warm_for_some_minutes_from_the_start_of_its_last_request() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, clock: Clock) -> None:
        priming = judge._priming
        assert not priming.will_be_read(REQUEST)
        await ask(judge, REQUEST)
        clock.at_s += 20
        await slow.give(GOOD)
        clock.at_s += WARM_FOR_S - 21
        assert priming.will_be_read(REQUEST)
        assert not priming.will_be_read(OTHER)
        clock.at_s += 1
        assert not priming.will_be_read(REQUEST)

    run(scenario)


def test_what_is_too_short_to_be_cached_never_waits_and_is_never_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "_MIN_CACHED_TOKENS", 100_000)

    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        await ask(judge, REQUEST, REQUEST, REQUEST)
        assert len(slow.waiting) == 3
        for _ in range(3):
            await slow.give(GOOD)
        assert not judge._priming.will_be_read(REQUEST)

    run(scenario)


def test_the_need_counts_the_static_part_for_the_first_request_alone() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        cold = judge.need(REQUEST)
        await ask(judge, REQUEST)
        behind_it = judge.need(REQUEST)
        await slow.give(GOOD)
        warm = judge.need(REQUEST)
        assert cold.input_tokens - 512 > behind_it.input_tokens == warm.input_tokens
        assert judge.need(OTHER).input_tokens >= cold.input_tokens

    run(scenario)


def test_the_need_follows_what_was_answered() -> None:
    async def scenario(slow: Slow, judge: MeteredClaudeJudge, _clock: Clock) -> None:
        before = judge.need(REQUEST).output_tokens
        await ask(judge, REQUEST)
        await slow.give(replace(GOOD, usage=Usage(input_tokens=900, output_tokens=100)))
        assert judge.need(REQUEST).output_tokens == (before + 100) / 2

    run(scenario)
