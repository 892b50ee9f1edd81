"""Questions of many threads that one thread answers together: each gets its own answer, or its own fault."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from qa_worker.adapters.together import Together


class Doubling:
    """Doubles numbers but for -1. Notes what was asked together."""

    def __init__(self) -> None:
        self.groups: list[tuple[int, ...]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, asked: Sequence[int]) -> Sequence[int]:
        self.groups.append(tuple(asked))
        self.begun.set()
        assert self.go_on.wait(10)
        if -1 in asked:
            raise ValueError("minus one")
        return [2 * number for number in asked]


def test_a_question_that_comes_alone_is_answered_alone() -> None:
    doubling = Doubling()
    together = Together(doubling, window_s=0.01, thread_name="t")

    assert together.ask(21) == 42

    assert doubling.groups == [(21,)]
    together.close()


def test_what_is_asked_while_an_answer_is_made_is_answered_together_and_each_gets_its_own() -> None:
    doubling = Doubling()
    doubling.go_on.clear()
    together = Together(doubling, window_s=0.2, thread_name="t")
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(together.ask, 0)
        assert doubling.begun.wait(10)
        others = [pool.submit(together.ask, number) for number in range(1, 21)]
        doubling.go_on.set()

        assert [asked.result(10) for asked in (first, *others)] == [2 * number for number in range(21)]

    assert doubling.groups[0] == (0,)
    assert len(doubling.groups) < 21
    together.close()


def test_a_fault_is_the_answer_of_the_one_question_that_it_is_about() -> None:
    doubling = Doubling()
    doubling.go_on.clear()
    together = Together(doubling, window_s=0.2, thread_name="t")
    with ThreadPoolExecutor(4) as pool:
        pool.submit(together.ask, 0)
        assert doubling.begun.wait(10)
        others = [pool.submit(together.ask, number) for number in (1, -1, 2)]
        doubling.go_on.set()

        assert others[0].result(10) == 2
        assert others[2].result(10) == 4
        with pytest.raises(ValueError, match="minus one"):
            others[1].result(10)

    together.close()


def test_what_waits_when_it_closes_is_answered() -> None:
    doubling = Doubling()
    doubling.go_on.clear()
    together = Together(doubling, window_s=5, thread_name="t")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(together.ask, 1)
        assert doubling.begun.wait(10)
        second = pool.submit(together.ask, 2)
        doubling.go_on.set()
        assert first.result(10) == 2

        together.close()

        assert second.result(10) == 4
