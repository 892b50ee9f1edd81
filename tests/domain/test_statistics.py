"""Checked against published examples, and against the definitions in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.statistics import (
    Interval,
    PassHat,
    Rate,
    count_pairs,
    difference_interval,
    fisher_exact,
    flaky,
    holm,
    mcnemar_exact,
    pass_hat_k,
    wilson_interval,
)
from qa_worker.domain.statistics import Pairs as PairCounts


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    found = wilson_interval(successes, n)

    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_wilson_interval_holds_its_rate_and_mirrors_the_failures(passed: int, failed: int) -> None:
    n = passed + failed
    found, mirrored = wilson_interval(passed, n), wilson_interval(failed, n)

    assert 0.0 <= found.low <= found.high <= 1.0
    assert not n or found.low <= passed / n <= found.high
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


def test_nothing_measured_is_no_rate_and_could_be_anything() -> None:
    assert Rate(0, 0).value is None
    assert Rate(0, 0).interval == Interval(0.0, 1.0)


def test_pass_hat_k_is_the_share_of_ways_to_draw_only_passes() -> None:
    runs = [True, True, True, False, True]
    drawn = [all(draw) for draw in combinations(runs, 3)]

    assert pass_hat_k([(4, 5)], 3).value == sum(drawn) / len(drawn) == 0.4


def test_pass_hat_1_is_the_mean_of_the_pass_rates_and_more_is_less() -> None:
    results = [(4, 4), (2, 4), (0, 4), (3, 4)]

    values = [pass_hat_k(results, k).value for k in (1, 2, 3, 4)]

    assert values == [0.5625, pytest.approx((1 + 1 / 6 + 0 + 0.5) / 4), pytest.approx((1 + 0.25) / 4), 0.25]


def test_scenarios_with_too_few_runs_are_left_out_and_counted() -> None:
    assert pass_hat_k([(4, 4), (1, 1)], 2) == PassHat(2, 1.0, 1)
    assert pass_hat_k([(1, 1)], 2) == PassHat(2, None, 0)


@pytest.mark.parametrize(
    ("runs", "is_flaky"), [([], False), ([True], False), ([True, True], False), ([True, False], True)]
)
def test_flaky_is_what_passed_and_failed(runs: list[bool], is_flaky: bool) -> None:  # noqa: FBT001 - a table
    assert flaky(runs) is is_flaky


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [
        (0, 0, Fraction(1)),
        (1, 0, Fraction(1)),
        (5, 0, Fraction(1, 16)),
        (6, 0, Fraction(1, 32)),
        (0, 6, Fraction(1, 32)),
        (9, 1, Fraction(22, 1024)),
        (3, 3, Fraction(1)),
    ],
)
def test_mcnemar_is_the_two_sided_sign_test_of_what_changed(worse: int, better: int, p: Fraction) -> None:
    assert mcnemar_exact(worse, better) == float(p)


def test_mcnemar_gives_the_published_p_value() -> None:
    # Approval of the prime minister, Agresti, Categorical Data Analysis, table 10.1; R: mcnemar.exact gives 3.716e-05.
    assert mcnemar_exact(86, 150) == pytest.approx(3.716e-05, rel=1e-4)


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_counts_the_ways_that_are_as_far_from_the_middle(worse: int, better: int) -> None:
    n = worse + better
    far = sum(math.comb(n, i) for i in range(n + 1) if abs(2 * i - n) >= abs(worse - better))

    assert mcnemar_exact(worse, better) == pytest.approx(float(Fraction(far, 2**n)))


def test_fisher_gives_the_p_value_of_the_lady_tasting_tea() -> None:
    # R. A. Fisher, The Design of Experiments (1935): 3 of 4 cups right is two-sided 34/70.
    assert fisher_exact(Rate(3, 4), Rate(1, 4)) == float(Fraction(34, 70))


@pytest.mark.parametrize(("before", "now"), list(product([(0, 3), (2, 3), (3, 3)], [(0, 4), (1, 4), (4, 4)])))
def test_fisher_counts_all_ways_to_deal_the_passes(before: tuple[int, int], now: tuple[int, int]) -> None:
    passes, n = before[0] + now[0], before[1] + now[1]
    deals = [sum(place < before[1] for place in deal) for deal in combinations(range(n), passes)]
    unlikely = [deal for deal in deals if deals.count(deal) <= deals.count(before[0])]

    assert fisher_exact(Rate(*before), Rate(*now)) == pytest.approx(len(unlikely) / len(deals))


def test_holm_gives_the_values_of_r() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.8, 0.9]) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)

    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    assert [q for _, q in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        # Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables (2017), ch. 8: Cavo et al. 2012.
        (PairCounts(both_passed=59, better=6, worse=16, both_failed=80), -0.1186, -0.0046),
        # The same book: Bentur et al. 2009.
        (PairCounts(both_passed=1, better=1, worse=7, both_failed=12), -0.5069, -0.0256),
        # Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10.
        (PairCounts(both_passed=36, better=12, worse=2, both_failed=0), 0.0569, 0.3404),
    ],
)
def test_the_interval_of_a_paired_difference_is_the_published_one(pairs: PairCounts, low: float, high: float) -> None:
    found = difference_interval(pairs)

    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(*[st.integers(0, 30)] * 4)
def test_the_interval_holds_the_difference_and_turns_with_the_sides(a: int, b: int, c: int, d: int) -> None:
    pairs, turned = PairCounts(a, b, c, d), PairCounts(a, c, b, d)
    found, mirrored = difference_interval(pairs), difference_interval(turned)

    assert -1.0 <= found.low <= found.high <= 1.0
    assert not pairs.n or found.low - 1e-9 <= (c - b) / pairs.n <= found.high + 1e-9
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)


def test_pairs_are_counted_by_what_became_of_them() -> None:
    pairs = count_pairs([(True, True), (True, False), (True, False), (False, True), (False, False)])

    assert pairs == PairCounts(both_passed=1, worse=2, better=1, both_failed=1)
    assert (pairs.before, pairs.after, pairs.p_value) == (Rate(3, 5), Rate(2, 5), 1.0)
