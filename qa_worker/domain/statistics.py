"""The statistics of repeated runs: intervals, reliability, and tests of paired results. Formulas with their sources."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its denominator and its interval; `value` is None where nothing was measured."""

    successes: int
    n: int

    @property
    def value(self) -> float | None:
        """`successes / n`."""
        return self.successes / self.n if self.n else None

    @property
    def interval(self) -> Interval:
        """Wilson's interval; 0 to 1 where nothing was measured."""
        return wilson_interval(self.successes, self.n)


def wilson_interval(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share, without continuity correction (E. B. Wilson, JASA 22, 1927, 209-212).

    Unlike the usual p +- 1.96 s it holds for few runs and for shares of 0 and 1. Without any run: 0 to 1.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / n, Z_95 * Z_95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return Interval(0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


@dataclass(frozen=True, slots=True)
class PassHat:
    """pass^k: how likely k runs of a scenario all pass. `value` is None where no scenario had k measured runs.

    `scenarios` of them had, and only those are in the mean.
    """

    k: int
    value: float | None
    scenarios: int


def pass_hat_k(results: Iterable[tuple[int, int]], k: int) -> PassHat:
    """The mean over scenarios, given as (passed, measured), of C(passed, k) / C(measured, k).

    That is tau-bench's unbiased estimate of the chance that k independent runs all pass (Yao et al., arXiv 2406.12045;
    `tau_bench/run.py`); (passed / measured) ** k would be biased. There every task has the same number of trials; here
    runs can be invalid, so that each scenario has its own.
    """
    chances = [Fraction(math.comb(passed, k), math.comb(n, k)) for passed, n in results if n >= k]
    return PassHat(k, float(sum(chances) / len(chances)) if chances else None, len(chances))


def flaky(outcomes: Iterable[bool]) -> bool:
    """Whether the same scenario both passed and failed."""
    return len(set(outcomes)) > 1


def mcnemar_exact(worse: int, better: int) -> float:
    """The two-sided p of McNemar's exact test: pairs that changed, each equally likely either way if nothing did.

    2 * P(X <= min(worse, better)) for X binomial with n = worse + better and 1/2, at most 1 (Q. McNemar, Psychometrika
    12, 1947; the exact form is the sign test on discordant pairs). 1 where no pair changed.
    """
    n, few = worse + better, min(worse, better)
    tail = Fraction(sum(math.comb(n, i) for i in range(few + 1)), 2**n)
    return float(min(Fraction(1), 2 * tail))


def fisher_exact(before: Rate, now: Rate) -> float:
    """The two-sided p of Fisher's exact test: as many passes, dealt at random to the runs of both sides.

    The sum over all ways to deal them that are at most as likely as the one seen (R. A. Fisher, 1935; the two-sided form
    of R and scipy).
    """
    passed, n = before.successes + now.successes, before.n + now.n
    ways = {
        dealt: math.comb(before.n, dealt) * math.comb(now.n, passed - dealt)
        for dealt in range(max(0, passed - now.n), min(before.n, passed) + 1)
    }
    seen = ways[before.successes]
    return float(Fraction(sum(count for count in ways.values() if count <= seen), math.comb(n, passed)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p values, in the order given (S. Holm, Scand. J. Statist. 6, 1979).

    Declaring those at most 0.05 bounds the chance of any false alarm among all of them by 5 %.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Paired results of before and after, counted."""

    both_passed: int = 0
    worse: int = 0
    """Passed before, fails now."""
    better: int = 0
    """Failed before, passes now."""
    both_failed: int = 0

    @property
    def n(self) -> int:
        """All pairs."""
        return self.both_passed + self.worse + self.better + self.both_failed

    @property
    def before(self) -> Rate:
        """The pass rate before, over the pairs."""
        return Rate(self.both_passed + self.worse, self.n)

    @property
    def after(self) -> Rate:
        """The pass rate now, over the pairs."""
        return Rate(self.both_passed + self.better, self.n)

    @property
    def p_value(self) -> float:
        """McNemar's exact test."""
        return mcnemar_exact(self.worse, self.better)


def count_pairs(pairs: Iterable[tuple[bool, bool]]) -> Pairs:
    """Pairs of (passed before, passes now), counted."""
    seen = list(pairs)
    return Pairs(
        both_passed=seen.count((True, True)),
        worse=seen.count((True, False)),
        better=seen.count((False, True)),
        both_failed=seen.count((False, False)),
    )


def difference_interval(pairs: Pairs) -> Interval:
    """The 95 % interval of the pass rate now minus before, from paired results; -1 to 1 without any pair.

    Method 10 of R. G. Newcombe, Statistics in Medicine 17, 1998, 2635-2650: Wilson's intervals of both rates, put together
    by the correlation of the pairs.
    """
    if pairs.n == 0:
        return Interval(-1.0, 1.0)
    now, before = pairs.after, pairs.before
    p1, p2 = now.successes / pairs.n, before.successes / pairs.n
    phi = _phi(pairs)
    below = _square_and_add(p1 - now.interval.low, before.interval.high - p2, phi)
    above = _square_and_add(p2 - before.interval.low, now.interval.high - p1, phi)
    difference = p1 - p2
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def _square_and_add(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _phi(pairs: Pairs) -> float:
    """Newcombe's corrected correlation; 0 where a margin is empty."""
    a, b, c, d = pairs.both_passed, pairs.better, pairs.worse, pairs.both_failed
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if not margins:
        return 0.0
    product = a * d - b * c
    corrected = max(0.0, product - pairs.n / 2) if product >= 0 else float(product)
    return corrected / math.sqrt(margins)
