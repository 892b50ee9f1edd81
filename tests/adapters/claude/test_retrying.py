from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

import pytest

from qa_worker.adapters.claude.retrying import MAX_TRIES, is_quick, with_quick_retries
from qa_worker.application.judging import JudgeAnswer
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.failure import Failure, FailureKind

GOOD = JudgeAnswer(Assessment(levels=()), Usage(output_tokens=5), "m", "req_9", "")


def failed(kind: FailureKind, code: str, *, retry_after_s: float | None = None) -> JudgeAnswer:
    return JudgeAnswer(Failure(kind, code, "", retry_after_s=retry_after_s), Usage(), "m", None, "")


@pytest.mark.parametrize(
    ("answer", "quick"),
    [
        (GOOD, False),
        (failed(FailureKind.TRANSIENT, "connection"), True),
        (failed(FailureKind.TRANSIENT, "connect_timeout"), True),
        (failed(FailureKind.TRANSIENT, "http_500"), True),
        (failed(FailureKind.TRANSIENT, "http_503", retry_after_s=1.0), True),
        (failed(FailureKind.TRANSIENT, "http_503", retry_after_s=30.0), False),
        (failed(FailureKind.TRANSIENT, "http_408"), False),
        # the answer may have been made, and billed, already
        (failed(FailureKind.TRANSIENT, "read_timeout"), False),
        (failed(FailureKind.TRANSIENT, "deadline"), False),
        (failed(FailureKind.TRANSIENT, "bad_response"), False),
        (failed(FailureKind.OVERLOADED, "http_529"), False),
        (failed(FailureKind.RATE_LIMITED, "http_429", retry_after_s=0.1), False),
        (failed(FailureKind.SPEND_CAP, "http_402"), False),
        (failed(FailureKind.REJECTED, "http_401"), False),
        (failed(FailureKind.UNREADABLE, "max_tokens"), False),
    ],
)
def test_only_faults_that_pass_at_once_are_tried_again_in_place(answer: JudgeAnswer, *, quick: bool) -> None:
    assert is_quick(answer) is quick


def run(*answers: JudgeAnswer) -> tuple[JudgeAnswer, list[float], list[JudgeAnswer]]:
    """The answer, the pauses that were made, and what was left unasked."""
    waiting: Iterator[JudgeAnswer] = iter(answers)
    pauses: list[float] = []

    def ask() -> Awaitable[JudgeAnswer]:
        # not a coroutine function, as the judge's isn't one either
        return answered()

    async def answered() -> JudgeAnswer:
        return next(waiting)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    result = asyncio.run(with_quick_retries(ask, sleep=pause))
    return result, pauses, list(waiting)


def test_a_good_answer_is_asked_for_once() -> None:
    assert run(GOOD, GOOD) == (GOOD, [], [GOOD])


def test_the_answer_after_a_fault_is_taken() -> None:
    result, pauses, unasked = run(failed(FailureKind.TRANSIENT, "http_500"), GOOD)
    assert (result, len(pauses), unasked) == (GOOD, 1, [])


def test_three_tries_are_the_most_and_the_last_fault_is_the_answer() -> None:
    faults = [failed(FailureKind.TRANSIENT, f"http_50{n}") for n in range(4)]
    result, pauses, unasked = run(*faults)
    assert result.result == faults[MAX_TRIES - 1].result
    assert len(unasked) == 1
    assert all(0 <= pause <= 1 for pause in pauses)


def test_a_fault_that_does_not_pass_ends_the_tries() -> None:
    limited = failed(FailureKind.RATE_LIMITED, "http_429")
    result, pauses, unasked = run(failed(FailureKind.TRANSIENT, "connection"), limited, GOOD)
    assert (result.result, len(pauses), unasked) == (limited.result, 1, [GOOD])
