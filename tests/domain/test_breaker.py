from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain import breaker
from qa_worker.domain.breaker import BreakerRules

RULES = BreakerRules()


def _opened_after(history: str, outcomes: str) -> int | None:
    for number, outcome in enumerate(outcomes, start=1):
        history = breaker.remembered(history, outcome, RULES)
        if breaker.is_down(history, RULES):
            return number
    return None


def test_five_failures_open_where_nothing_else_is_known() -> None:
    assert _opened_after("", "f" * 20) == 5


def test_an_outage_after_success_only_opens_after_twelve_failures() -> None:
    assert _opened_after("s" * 20, "f" * 20) == 12


def test_late_successes_of_an_outage_delay_it_by_little() -> None:
    draw = random.Random(3)  # noqa: S311 - the same each time
    mixed = "".join(draw.choice("sf") for _ in range(400))

    assert (_opened_after("s" * 20, mixed) or 400) < 150


def test_twenty_percent_errors_do_not_open() -> None:
    draw = random.Random(7)  # noqa: S311 - the same each time
    flaky = "".join("f" if draw.random() < 0.2 else "s" for _ in range(20_000))

    assert "fffff" in flaky, "five in a row would have opened it"
    assert _opened_after("", flaky) is None


@given(st.text("sf", max_size=200))
def test_a_service_whose_last_answer_was_good_is_not_down(history: str) -> None:
    assert not breaker.is_down(breaker.remembered(history, "s", RULES), RULES)


def test_the_time_doubles_up_to_the_longest() -> None:
    assert [breaker.open_s(trips, RULES) for trips in (1, 2, 3, 4, 5, 10_000)] == [60, 120, 240, 480, 600, 600]


@pytest.mark.parametrize(
    ("since_s", "share"), [(0, 0.1), (2.4, 0.1), (2.5, 0.25), (5, 0.5), (7.5, 1.0), (1e9, 1.0), (-1, 0.1)]
)
def test_the_rate_comes_back_in_steps(since_s: float, share: float) -> None:
    assert breaker.share_at(since_s, RULES) == share
