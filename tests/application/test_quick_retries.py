"""Quick retries in the slot: of what, how often, how late. What each of them passes is tested with the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from qa_worker.application.quick_retries import MAX_TRIES, WITHIN_S, is_quick, more_tries
from qa_worker.domain.evaluation import Assessment
from qa_worker.domain.failure import Failure, FailureKind


def failed(kind: FailureKind, code: str, *, retry_after_s: float | None = None) -> Failure:
    return Failure(kind, code, "", retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("result", "quick"),
    [
        (Assessment(levels=()), False),
        (failed(FailureKind.TRANSIENT, "connection"), True),
        (failed(FailureKind.TRANSIENT, "connect_timeout"), True),
        (failed(FailureKind.TRANSIENT, "http_500"), True),
        (failed(FailureKind.TRANSIENT, "http_503", retry_after_s=1.0), True),
        (failed(FailureKind.TRANSIENT, "http_503", retry_after_s=30.0), False),
        (failed(FailureKind.TRANSIENT, "http_408"), False),
        # the answer may have been made, and billed, already
        (failed(FailureKind.TRANSIENT, "cut_answer"), False),
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
def test_only_faults_that_pass_at_once_are_tried_again_in_place(result: Assessment | Failure, *, quick: bool) -> None:
    assert is_quick(result) is quick


@dataclass(frozen=True)
class Try:
    name: str
    again: bool = True


def run(*tries: Try, each_takes_s: float = 0.0) -> tuple[Try, list[float], list[Try]]:
    """What it came to, the pauses that were made, and what was left untried."""
    left: Iterator[Try] = iter(tries)
    pauses: list[float] = []
    now = each_takes_s

    async def attempt(before: Try) -> Try:
        nonlocal now
        assert before.again
        now += each_takes_s
        return next(left)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    result = asyncio.run(more_tries(next(left), attempt, since_s=lambda: now, sleep=pause))
    return result, pauses, list(left)


def test_the_answer_after_a_fault_is_taken() -> None:
    good = Try("good", again=False)
    result, pauses, untried = run(Try("fault"), good, Try("never"))
    assert (result, len(pauses), untried) == (good, 1, [Try("never")])


def test_three_tries_are_the_most_and_the_last_fault_is_the_answer() -> None:
    tries = [Try(str(number)) for number in range(5)]
    result, pauses, untried = run(*tries)
    assert (result, untried) == (tries[MAX_TRIES - 1], tries[MAX_TRIES:])
    assert all(0 <= pause <= 1 for pause in pauses)


def test_no_try_begins_late() -> None:
    result, pauses, untried = run(Try("first"), Try("second"), Try("third"), each_takes_s=WITHIN_S / 2)
    assert (result, len(pauses), untried) == (Try("second"), 1, [Try("third")])


def test_a_fault_of_ours_is_raised() -> None:
    async def broken(_before: Try) -> Try:
        raise ZeroDivisionError

    async def pause(_seconds: float) -> None:
        await asyncio.sleep(0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(more_tries(Try("first"), broken, since_s=lambda: 0.0, sleep=pause))
