"""The arithmetic of the gateway's benchmarks."""

from __future__ import annotations

from benchmarks.limits import Case, used_of_limits
from benchmarks.outage import full_speed_after

CASE = Case(600, 60_000, 6_000, latency_s=1.0, ramp_s=5, in_flight_limit=10)


def test_what_is_used_of_limits_is_counted_in_the_window_alone() -> None:
    second = {"answer": 9, "input_tokens": 400, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 9999}
    seconds = {0: {"answer": 500}, **dict.fromkeys(range(10, 20), second), 20: {"answer": 500}}

    used = used_of_limits(seconds, 10, 20, CASE)

    assert used == {"requests": 90.0, "input_tokens": 50.0, "output_tokens": 0.0}


def test_full_speed_is_back_when_it_lasts() -> None:
    # 16.7 a second are allowed
    slow, burst, full = {"answer": 3}, {"answer": 20}, {"answer": 16}
    seconds = {30: burst, **dict.fromkeys(range(31, 38), slow), **dict.fromkeys(range(38, 60), full)}

    assert full_speed_after(seconds, 30.4) == 7.6


def test_a_speed_that_never_comes_back_is_none() -> None:
    assert full_speed_after({second: {"answer": 3} for second in range(60)}, 10.0) is None
