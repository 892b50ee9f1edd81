"""One event loop behind a port that blocks: every answer comes, also when the loop is closed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from qa_worker.adapters.eventloop import EventLoop, JudgeOnLoop
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.builders import a_call, a_rubric, an_assessment


def _request(ref: str) -> JudgeRequest:
    return JudgeRequest(a_call(ref), a_rubric(), Evidence(), JudgeSpec(JudgeKind.CLAUDE), "workspace")


class Slow:
    """Answers after a moment; one call raises, one never ends."""

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        if request.call.ref == "broken":
            raise ZeroDivisionError
        await asyncio.sleep(3600 if request.call.ref == "endless" else 0.01)
        return JudgeAnswer(an_assessment(), Usage(), request.call.ref, None, "")


def test_many_requests_are_under_way_at_once_and_each_answer_has_its_number() -> None:
    loop = EventLoop()
    judge = JudgeOnLoop(Slow(), loop)

    answers = dict(judge.grade_each([_request(f"call-{n}") for n in range(50)]))

    assert {n: answer.model for n, answer in answers.items() if isinstance(answer, JudgeAnswer)} == {
        n: f"call-{n}" for n in range(50)
    }
    loop.close()


def test_a_fault_in_one_request_is_that_ones_answer() -> None:
    loop = EventLoop()
    judge = JudgeOnLoop(Slow(), loop)

    answers = dict(judge.grade_each([_request("good"), _request("broken")]))

    assert isinstance(answers[0], JudgeAnswer)
    assert isinstance(answers[1], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        judge.grade(_request("broken"))
    loop.close()


def test_a_loop_that_is_closed_leaves_nobody_waiting() -> None:
    loop = EventLoop()
    judge = JudgeOnLoop(Slow(), loop)
    seen: list[object] = []

    def wait() -> None:
        seen.extend(answer for _, answer in judge.grade_each([_request("endless"), _request("endless")]))

    thread = threading.Thread(target=wait)
    thread.start()
    while loop.run(_tasks()) < 3:
        pass
    loop.close()
    thread.join(10)

    assert not thread.is_alive()
    assert [type(answer) for answer in seen] == [RuntimeError, RuntimeError]


async def _tasks() -> int:
    return len(asyncio.all_tasks())
