from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain import bucket as model
from qa_worker.domain.bucket import Amounts, Bucket, Pacing, Turn
from tests.domain.provider import Backlog, Dispatched, Provider

PACING = Pacing(start=(600.0, 600_000.0, 120_000.0), use=1.0)
RUNNING = replace(model.opened(PACING, 0.0), learnt=(1.0, 1.0, 1.0))
ONE = (1.0, 1000.0, 200.0)
NOTHING = (None, None, None)
MINUTES = 3


def _reserved(state: Bucket, now: float, need: Amounts = ONE, share: float = 1.0) -> tuple[Bucket, Turn]:
    return model.reserve(state, now, need, share=share, pacing=PACING)


def _waits(state: Bucket, now: float, asked: int, share: float = 1.0) -> list[Turn]:
    turns = []
    for _ in range(asked):
        state, turn = _reserved(state, now, share=share)
        turns.append(turn)
    return turns


needs = st.tuples(st.just(1.0), st.floats(1, 500_000), st.floats(1, 100_000))
steps = st.lists(st.tuples(st.floats(0, 20), needs, st.floats(0.1, 1.0)), min_size=1, max_size=60)


@given(steps, st.sampled_from([0.0, 2.0]))
def test_granted_in_any_time_is_at_most_a_bucket_and_the_rate(
    stream: list[tuple[float, Amounts, float]], book_ahead_s: float
) -> None:
    pacing = replace(PACING, book_ahead_s=book_ahead_s)
    state, now = replace(RUNNING, pace=2.0), 0.0
    granted: list[tuple[float, Amounts]] = []
    for gap, need, share in stream:
        now += gap
        state, turn = model.reserve(state, now, need, share=share, pacing=pacing)
        if turn.granted:
            granted.append((now + turn.wait_s, need))

    for meter, limit in enumerate(PACING.start):
        rate = limit / 60
        for first in range(len(granted)):
            window = granted[first:]
            total = 0.0
            for leaves, need in window:
                total += need[meter]
                most = max(pacing.burst_s * rate, *(n[meter] for _, n in window))
                assert total <= most + rate * (leaves - window[0][0]) + 1e-6 * total


@given(steps)
def test_who_comes_first_leaves_first(stream: list[tuple[float, Amounts, float]]) -> None:
    state, now, leaves = replace(RUNNING, pace=1.0), 0.0, []
    for gap, _, _ in stream:
        now += gap / 20
        state, turn = _reserved(state, now)
        leaves += [now + turn.wait_s] if turn.granted else []

    assert all(earlier <= later + 1e-9 for earlier, later in pairwise(leaves))


@given(needs, st.floats(0.05, 1.0))
def test_a_need_greater_than_the_bucket_is_a_bounded_wait(need: Amounts, share: float) -> None:
    huge = (need[0], need[1] * 50, need[2] * 50)
    state, first = _reserved(RUNNING, 0.0, huge, share)
    asked_at, turn = 0.0, first
    for _ in range(200):
        state, turn = _reserved(state, asked_at, huge, share)
        if turn.granted:
            break
        asked_at += turn.wait_s

    assert first.granted
    assert turn.granted


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(-1e6, 1e6)), max_size=30),
    st.floats(1, 1e6),
)
def test_nothing_lifts_a_level_above_a_full_bucket(changes: list[tuple[float, float]], left: float) -> None:
    state, now = RUNNING, 0.0
    for gap, change in changes:
        now += gap
        state = model.settle(state, now, (1.0, change, change), PACING)
        state = model.learn(state, now, NOTHING, (left, left, left), PACING)

        assert all(
            level <= PACING.burst_s * limit / 60 for level, limit in zip(state.levels, state.limits, strict=True)
        )


def test_five_hundred_refused_ones_are_told_to_come_one_after_the_other() -> None:
    turns = _waits(RUNNING, 0.0, 560)
    refused = [turn.wait_s for turn in turns if not turn.granted]

    assert len(refused) > 500
    assert all(later - earlier == pytest.approx(0.1) for earlier, later in pairwise(refused[:400]))


def test_booking_ahead_ends_after_two_seconds() -> None:
    granted = [turn.wait_s for turn in _waits(RUNNING, 0.0, 200) if turn.granted]

    # two seconds' worth at once, two more ahead
    assert len(granted) == pytest.approx(40, abs=2)
    assert max(granted) <= 2.2


def test_nobody_leaves_during_a_pause_and_the_pace_is_cut_once() -> None:
    paused = model.pause(RUNNING, 0.0, 7.0)
    again = model.pause(paused, 0.5, 3.0)
    _, turn = _reserved(again, 1.0)

    assert not turn.granted
    assert turn.wait_s == pytest.approx(6.0)
    assert again.pace == paused.pace < RUNNING.pace


def test_a_shorter_pause_never_ends_a_longer_one() -> None:
    assert model.pause(model.pause(RUNNING, 0.0, 60.0), 1.0, 1.0).paused_until == pytest.approx(60.0)


gaps = st.sampled_from([0.0, 0.001, 0.3, 1.0, 1.1, 2.5, 6.0])


@given(st.lists(gaps, max_size=60), gaps)
def test_an_overload_halves_the_rate_at_most_to_an_eighth_and_it_comes_back_in_steps(
    stream: list[float], after_s: float
) -> None:
    state, now, loads = RUNNING, 1000.0, [1.0]
    for gap in stream:
        now += gap
        before = model.load_at(state, now)
        state = model.ease(state, now)
        loads.append(model.load_at(state, now))
        assert loads[-1] in (before, max(model.LEAST_LOAD, before / 2))

    assert min(loads) >= model.LEAST_LOAD
    assert model.load_at(state, now) <= model.load_at(state, now + after_s) <= 1.0
    assert model.load_at(state, now + 3.001 * model.LOAD_STEP_S) == 1.0


def test_refusals_of_requests_that_were_under_way_together_halve_once() -> None:
    state = RUNNING
    for number in range(300):
        state = model.ease(state, 1000.0 + number / 400)

    assert model.load_at(state, 1001.0) == 0.5


def _granted(state: Bucket, begin: float, seconds: int, *, overloaded: bool) -> tuple[Bucket, list[int]]:
    """How many of those who are never out of work leave, second by second."""
    pacing = replace(PACING, regrow=0.0, peak=1.0)
    each_second = []
    for second in range(seconds):
        state = model.ease(state, begin + second) if overloaded else state
        turns = []
        for tick in range(50):
            state, turn = model.reserve(state, begin + second + tick / 50, ONE, share=1.0, pacing=pacing)
            turns.append(turn.granted)
        each_second.append(sum(turns))
    return state, each_second


def test_what_stays_overloaded_is_sent_an_eighth_and_all_of_it_again_soon_after() -> None:
    state, before = _granted(replace(RUNNING, pace=1.0, ceiling=1.0), 1000.0, 10, overloaded=False)
    state, during = _granted(state, 1010.0, 24, overloaded=True)
    state, after = _granted(state, 1034.0, 20, overloaded=False)

    assert sum(before[-5:]) == pytest.approx(50, abs=2)
    assert sum(during[-16:]) == pytest.approx(20, abs=2)
    assert sum(after[:8]) < 60
    assert sum(after[8:]) == pytest.approx(120, abs=3)


def test_a_clock_that_is_set_back_ends_an_overload() -> None:
    assert model.load_at(model.ease(RUNNING, 1000.0), 10.0) == 1.0


def test_nobody_leaves_while_the_spend_limit_is_reached_and_one_asks_then() -> None:
    capped, _ = model.cap(RUNNING, 0.0, 300.0, probe=False)

    held, early = _reserved(capped, 299.0)
    probing, probe = _reserved(held, 300.0)
    _, behind = _reserved(probing, 301.0)
    _, heir = _reserved(probing, 300.0 + PACING.probe_lease_s)

    assert early == Turn(granted=False, wait_s=1.0, capped=True)
    assert (probe.granted, probe.probe) == (True, True)
    assert (behind.granted, behind.capped) == (False, True)
    assert heir.probe, "the lease of a dead one runs out"
    assert held.queue == RUNNING.queue


def test_only_the_probe_has_anything_new_to_say_of_the_spend_limit() -> None:
    capped, new = model.cap(RUNNING, 0.0, 300.0, probe=False)
    again, late = model.cap(capped, 50.0, 300.0, probe=False)
    lifted, told = model.cap(again, 60.0, 0.0, probe=True)

    assert (new, late, told) == (True, False, True)
    assert again == capped
    assert lifted == RUNNING


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 5)), min_size=1, max_size=30))
def test_of_all_who_ask_one_leaves_in_the_time_of_a_lease(stream: list[tuple[float, int]]) -> None:
    state, _ = model.cap(RUNNING, 0.0, 60.0, probe=False)
    now, left_at = 0.0, []
    for gap, many in stream:
        now += gap
        for _ in range(many):
            state, turn = _reserved(state, now)
            left_at += [now + turn.wait_s] if turn.granted else []

    assert not left_at or left_at[0] >= 60.0
    assert all(later - earlier >= PACING.probe_lease_s for earlier, later in pairwise(left_at))


def test_a_dispatcher_sends_what_asks_for_the_spend_limit_when_it_is_time() -> None:
    capped, _ = model.cap(RUNNING, 0.0, 300.0, probe=False)

    def room(now: float) -> float:
        return model.room(capped, now, within_s=1.5, share=1.0, pacing=PACING)

    assert (room(299.0), room(300.0)) == (0.0, 2.0)


def test_what_was_spent_before_limits_were_learnt_stays_spent() -> None:
    state, _ = _reserved(model.opened(PACING, 0.0), 0.0)
    learnt = model.learn(state, 0.0, (6000.0, None, None), NOTHING, PACING)

    assert learnt.levels[0] == pytest.approx(1000 - 1)
    assert learnt.learnt == (1.0, 0.0, 0.0)


def test_what_is_left_only_lowers() -> None:
    lowered = model.learn(RUNNING, 0.0, NOTHING, (7.0, 1e9, None), PACING)

    assert lowered.levels == (7.0, *RUNNING.levels[1:])
    assert model.learn(lowered, 0.0, NOTHING, (50.0, None, None), PACING).levels[0] == 7.0


def test_an_empty_bucket_told_by_hundreds_of_answers_stops_nothing_that_is_booked() -> None:
    state, now = replace(RUNNING, pace=1.0), 0.0
    granted = 0
    for _ in range(3000):
        now += 0.02
        state, turn = _reserved(state, now)
        granted += turn.granted
        state = model.learn(state, now, NOTHING, (0.0, 0.0, 0.0), PACING)

    assert granted >= 0.97 * 10 * now


def test_a_live_call_finds_room_while_a_backlog_takes_all_that_comes_in() -> None:
    state, now, waits = replace(RUNNING, pace=1.0), 0.0, []
    for tick in range(3000):
        now = tick / 50
        # What can wait asks as often as it gets something, and books no further ahead than the dispatcher sends.
        while model.room(state, now, within_s=0.5, share=1.0, pacing=PACING) >= 1:
            state, turn = model.reserve(state, now, ONE, share=1.0, pacing=PACING, kept_s=PACING.kept_s)
            assert turn.granted
        if tick % 100 == 99:
            state, live = _reserved(state, now)
            waits.append(live.wait_s)

    assert max(waits) < 0.05


def test_what_is_kept_costs_nothing_of_the_rate() -> None:
    state, now, granted = replace(RUNNING, pace=2.0), 0.0, 0
    for tick in range(6000):
        now = tick / 50
        state, turn = model.reserve(state, now, ONE, share=1.0, pacing=PACING, kept_s=PACING.kept_s)
        granted += turn.granted

    assert granted >= 10 * now


@given(steps, st.floats(0.1, 2.0), st.floats(0.2, 1.0))
def test_as_many_as_there_is_room_for_leave_in_time(
    stream: list[tuple[float, Amounts, float]], within_s: float, share: float
) -> None:
    state, now = replace(RUNNING, pace=1.0, ceiling=1.0), 0.0
    pacing = replace(PACING, regrow=0.0, peak=1.0)
    for gap, _, _ in stream:
        now += gap / 10
        state, _ = model.reserve(state, now, ONE, share=share, pacing=pacing)

    room = int(model.room(state, now, within_s=within_s, share=share, pacing=pacing))
    turns = []
    for _ in range(room + 2):
        state, turn = model.reserve(state, now, ONE, share=share, pacing=pacing, kept_s=pacing.kept_s)
        turns.append(turn)

    assert all(turn.granted and turn.wait_s <= within_s + 1e-9 for turn in turns[:room])
    assert not turns[-1].granted or turns[-1].wait_s > within_s - 0.2


def test_there_is_no_room_during_a_pause_and_little_before_the_first_request() -> None:
    paused = model.pause(RUNNING, 0.0, 7.0)

    assert model.room(paused, 1.0, within_s=1.5, share=1.0, pacing=PACING) == 0.0
    assert 1 <= model.room(model.opened(PACING, 0.0), 0.0, within_s=1.5, share=1.0, pacing=PACING) <= 10


def test_after_limits_are_learnt_the_rate_grows_and_does_not_jump() -> None:
    state = model.learn(model.opened(PACING, 0.0), 0.0, (6000.0, 6e6, 1.2e6), NOTHING, PACING)
    each_second = []
    for second in range(12):
        granted = 0
        for tick in range(400):
            state, turn = _reserved(state, second + tick / 400)
            granted += turn.granted
        each_second.append(granted)

    assert each_second[1] < 40
    assert each_second[-1] >= 100
    assert all(later <= 2.5 * earlier + 10 for earlier, later in pairwise(each_second))


def test_a_long_silence_starts_the_pace_again() -> None:
    fast = replace(RUNNING, limits=(6000.0, 6e6, 1.2e6), pace=2.0)
    state, _ = _reserved(fast, 61.0)

    assert state.pace == pytest.approx(0.1)


def test_a_share_slows_the_pace_whatever_the_buckets_hold() -> None:
    assert sum(turn.granted for turn in _waits(RUNNING, 0.0, 100, share=0.1)) <= 5


def test_a_clock_that_is_set_back_refills_nothing_and_goes_on() -> None:
    state = model.settle(RUNNING, 1000.0, (-50.0, 0.0, 0.0), PACING)
    state = model.settle(state, 10.0, (0.0, 0.0, 0.0), PACING)

    assert state.levels[0] == pytest.approx(50.0)
    assert model.filled(state, 11.0, PACING).levels[0] == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("provider", "latency_s", "slots"),
    [
        (Provider((1000.0, 2e6, 4e5), holds_s=60.0), 1.0, 200),
        (Provider((1000.0, 2e6, 4e5), holds_s=2.0), 1.0, 200),
        (Provider((5000.0, 5e6, 1e6), holds_s=10.0, early=True), 1.0, 350),
        (Provider((10_000.0, 10e6, 2e6), holds_s=10.0, early=True), 5.0, 1450),
    ],
    ids=["1000", "1000 in small buckets", "5000", "10000 in 5 s"],
)
def test_unknown_limits_are_used_to_the_full_and_not_hit(provider: Provider, latency_s: float, slots: int) -> None:
    pacing = Pacing(start=(1000.0, 1e6, 2e5))
    backlog = Backlog(
        provider, pacing, need=(1.0, 1000.0, 150.0), used=(1.0, 900.0, 100.0), latency_s=latency_s, slots=slots
    )

    result = backlog.run(60.0 * MINUTES)

    assert (result.sent - result.refused) / (provider.limits[0] * MINUTES) >= 0.97
    assert result.refused_share < 0.005
    assert result.asks < 3 * result.sent


@pytest.mark.parametrize(
    ("provider", "latency_s"),
    [
        (Provider((30.0, 1e5, 1e4), holds_s=60.0), 1.0),
        (Provider((1000.0, 2e6, 4e5), holds_s=60.0), 1.0),
        (Provider((5000.0, 5e6, 1e6), holds_s=10.0, early=True), 1.0),
        (Provider((10_000.0, 10e6, 2e6), holds_s=10.0, early=True), 5.0),
        (Provider((5000.0, 1e9, 1e9), holds_s=60.0), 1.0),
    ],
    ids=["30", "1000", "5000", "10000 in 5 s", "lopsided"],
)
def test_a_dispatcher_that_sends_what_there_is_room_for_uses_them_as_well(provider: Provider, latency_s: float) -> None:
    pacing = Pacing(start=(1000.0, 1e6, 2e5))
    backlog = Dispatched(
        provider, pacing, need=(1.0, 1000.0, 150.0), used=(1.0, 900.0, 100.0), latency_s=latency_s, every_s=1.0
    )
    backlog.run(60.0)
    sent_by_then = backlog.result.sent

    result = backlog.run(60.0 * (MINUTES + 1))

    assert (result.sent - sent_by_then) / (provider.limits[0] * MINUTES) >= 0.97
    assert result.refused_share < 0.005
    assert result.held <= 0.01 * result.sent, "hardly anybody is sent in vain"


def test_others_who_use_half_of_the_limits_are_made_room_for() -> None:
    provider = Provider((5000.0, 5e6, 1e6), holds_s=10.0, others=0.5)
    pacing = Pacing(start=(1000.0, 1e6, 2e5))
    backlog = Backlog(provider, pacing, need=(1.0, 1000.0, 150.0), used=(1.0, 900.0, 100.0), latency_s=1.0, slots=350)

    result = backlog.run(60.0 * MINUTES)

    assert (result.sent - result.refused) / (2500 * MINUTES) >= 0.97
    assert result.refused_share < 0.005
