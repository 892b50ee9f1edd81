"""When an agent fails too often: a level, a rise over what is usual, and how much must be known for either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.alert_rule import RuleKind
from qa_worker.domain.failure_rate import MIN_FAILURES, Tally, too_high
from tests.domain.test_alert_rule import a_rule

LEVEL = a_rule(RuleKind.FAILURE_RATE, threshold=0.2, window_s=3600, min_samples=20)
RISE = a_rule(RuleKind.FAILURE_RATE, baseline=True, rise=0.2, window_s=3600, min_samples=20)
USUAL = Tally(passed=180, failed=20)


def tally(failed: int, judged: int) -> Tally:
    return Tally(passed=judged - failed, failed=failed)


@pytest.mark.parametrize(("failed", "judged", "told"), [(3, 20, False), (4, 20, True), (20, 20, True), (0, 20, False)])
def test_a_level_is_reached_at_the_level(failed: int, judged: int, told: bool) -> None:  # noqa: FBT001 - a table
    assert (too_high(LEVEL, tally(failed, judged), Tally()) is not None) is told


def test_below_the_minimum_of_samples_nothing_is_said() -> None:
    assert too_high(LEVEL, tally(19, 19), Tally()) is None


def test_what_was_not_measured_is_no_sample_and_no_failure() -> None:
    unmeasured = Tally(passed=10, failed=0, needs_review=500, not_evaluated=500)

    assert too_high(LEVEL, unmeasured, Tally()) is None
    assert unmeasured.rate == 0


@pytest.mark.parametrize(("failed", "told"), [(11, False), (12, False), (13, True)])
def test_a_rise_is_relative_to_what_is_usual(failed: int, told: bool) -> None:  # noqa: FBT001 - a table
    """10 % are usual; 20 % more than that is 12 %."""
    assert (too_high(RISE, tally(failed, 100), USUAL) is not None) is told


def test_a_rise_needs_a_history() -> None:
    assert too_high(RISE, tally(50, 100), Tally()) is None
    assert too_high(RISE, tally(50, 100), tally(1, 19)) is None


def test_one_failure_where_there_were_none_is_chance() -> None:
    assert too_high(RISE, tally(MIN_FAILURES - 1, 100), tally(0, 700)) is None
    assert too_high(RISE, tally(MIN_FAILURES, 100), tally(0, 700)) is not None


def test_what_is_said_shows_every_denominator() -> None:
    now = Tally(passed=70, failed=30, needs_review=4, not_evaluated=2)

    said = too_high(RISE, now, USUAL)

    assert said == (
        "30 of 100 judged calls failed (30.0%) in 3600 s; usual are 10.0% (20 of 200); "
        "4 need review and 2 were not evaluated"
    )


@given(failed=st.integers(0, 50), more=st.integers(0, 50), judged=st.integers(100, 200))
def test_more_failures_are_never_less_of_a_reason(failed: int, more: int, judged: int) -> None:
    for rule in (LEVEL, RISE):
        if too_high(rule, tally(failed, judged), USUAL) is not None:
            assert too_high(rule, tally(failed + more, judged), USUAL) is not None
