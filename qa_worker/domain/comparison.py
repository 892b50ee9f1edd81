"""Two agent versions on the same scenarios: is the new one worse, better, or can't it be told?

All together, paired: each repeat of a scenario before with the same repeat of it now. Under the hypothesis that no
scenario's chance to pass has changed, a pair that differs is as likely to differ one way as the other, whatever these
chances are; so McNemar's exact test over all pairs holds although repeats of one scenario resemble each other. It speaks
of these scenarios, not of calls in general.

Each scenario by itself: its passes before and now by Fisher's exact test, corrected by Holm for the number of scenarios.
Within one scenario no repeat belongs to another one more than to the rest, so pairing them would only lose information:
7 of 7 against 0 of 7 is shown among 27 scenarios, where McNemar's test would need 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from qa_worker.domain.statistics import Interval, Pairs, Rate, count_pairs, difference_interval, fisher_exact, holm
from qa_worker.domain.suite import ExitCode, ScenarioResult, SuiteResult

ALPHA = 0.05
"""The chance of calling a difference shown where there is none."""
MARGIN = 0.15
"""The drop of the pass rate that a comparison has to be able to rule out before it says "no difference shown".

Our own: at 0.15 some 22 pairs that all passed are enough, fewer are "too few to tell".
"""


class Change(StrEnum):
    """What a comparison says."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    NO_DIFFERENCE = "no_difference_shown"
    TOO_FEW = "too_few_to_tell"
    UNTESTED = "could_not_test"
    """Something that was measured before was not measured now: whatever broke there goes unseen."""


@dataclass(frozen=True, slots=True)
class ScenarioChange:
    """One scenario before and now. `adjusted_p` is corrected for the number of scenarios that were compared."""

    scenario: str
    title: str
    before: Rate
    now: Rate
    adjusted_p: float

    @property
    def moved(self) -> float:
        """The pass rate now minus before."""
        return (self.now.value or 0.0) - (self.before.value or 0.0)

    @property
    def change(self) -> Change | None:
        """What this scenario shows by itself, at `ALPHA` for all scenarios together; None for nothing."""
        if self.adjusted_p > ALPHA:
            return None
        return Change.REGRESSED if self.moved < 0 else Change.IMPROVED


@dataclass(frozen=True, slots=True)
class Comparison:
    """`before` against `now`. `left_out` says, by scenario, why it could not be compared.

    `unpaired` counts repeats that were measured on one side only: they count for their scenario, not for the pairs.
    `untested` says what is missing for a verdict; `warnings` what else than the agent may explain a difference.
    """

    before: str
    now: str
    pairs: Pairs
    scenarios: tuple[ScenarioChange, ...]
    left_out: tuple[tuple[str, str], ...]
    unpaired: int
    untested: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def difference(self) -> Interval:
        """The interval of the pass rate now minus before."""
        return difference_interval(self.pairs)

    @property
    def verdict(self) -> Change:
        """Regressed if all pairs together show it, or one scenario alone does, whatever was not tested.

        Else, where all that was measured before is measured now, what all pairs together show.
        """
        shown = self.pairs.p_value <= ALPHA
        if any(scenario.change is Change.REGRESSED for scenario in self.scenarios):
            return Change.REGRESSED
        if shown and self.pairs.worse > self.pairs.better:
            return Change.REGRESSED
        if self.untested:
            return Change.UNTESTED
        if shown:
            return Change.IMPROVED
        return Change.TOO_FEW if self.difference.low < -MARGIN else Change.NO_DIFFERENCE

    @property
    def exit_code(self) -> ExitCode:
        """1 for a regression, 3 where it can't be told, 0 otherwise."""
        return _EXIT_CODES.get(self.verdict, ExitCode.PASSED)


_EXIT_CODES = {
    Change.REGRESSED: ExitCode.AGENT_FAILED,
    Change.TOO_FEW: ExitCode.COULD_NOT_TEST,
    Change.UNTESTED: ExitCode.COULD_NOT_TEST,
}


def compare(before: SuiteResult, now: SuiteResult) -> Comparison:
    """The two results, scenario by scenario. Scenarios that changed, or that only one side has, are left out and named."""
    old = {scenario.scenario: scenario for scenario in before.scenarios}
    new = {scenario.scenario: scenario for scenario in now.scenarios}
    names = dict.fromkeys((*old, *new))
    reasons = {name: _not_comparable(old.get(name), new.get(name)) for name in names}
    kept = [name for name in names if not reasons[name]]
    p_values = holm([fisher_exact(old[name].rate, new[name].rate) for name in kept])
    return Comparison(
        before=before.agent_version,
        now=now.agent_version,
        pairs=count_pairs(pair for name in kept for pair in _paired(old[name], new[name])),
        scenarios=tuple(
            ScenarioChange(name, new[name].title, old[name].rate, new[name].rate, p)
            for name, p in zip(kept, p_values, strict=True)
        ),
        left_out=tuple((name, reason) for name, reason in reasons.items() if reason),
        unpaired=sum(len(old[name].outcomes.keys() ^ new[name].outcomes.keys()) for name in kept),
        untested=tuple(_untested(before, now)),
        warnings=tuple(_warnings(before, now)),
    )


def _untested(before: SuiteResult, now: SuiteResult) -> Iterator[str]:
    if not before.over:
        yield "The old suite run is not over."
    if not now.over:
        yield "The new suite run is not over."
    new = {scenario.scenario: scenario for scenario in now.scenarios}
    measured = [scenario for scenario in before.scenarios if scenario.measured]
    missing = sum(not (one.scenario in new and new[one.scenario].measured) for one in measured)
    if missing:
        yield f"{missing} of {len(measured)} scenarios that were measured before were not measured now."
    otherwise = sum(one.scenario in new and bool(_judged_otherwise(one, new[one.scenario])) for one in measured)
    if otherwise:
        yield f"{otherwise} of {len(measured)} scenarios were judged otherwise than before: run the old version again."


def _warnings(before: SuiteResult, now: SuiteResult) -> Iterator[str]:
    if before.target != now.target and before.target and now.target:
        yield f"The agent was reached as {before.target!r} before and as {now.target!r} now."
    if before.callers != now.callers and before.callers and now.callers:
        old, new = ", ".join(before.callers), ", ".join(now.callers)
        yield f"The callers were played by {old} before and by {new} now, which may explain a difference."


def _judged_otherwise(old: ScenarioResult, new: ScenarioResult) -> str:
    """Why the verdicts of a scenario mean something else now; empty where they don't, or nobody knows."""
    for named, what in (("judge", "judge"), ("rubric_version", "version of the rubric or its judge's settings")):
        before, now = ({getattr(run, named) for run in one.measured} - {""} for one in (old, new))
        if before and now and before != now:
            return f"it was graded by another {what}"
    return ""


def _not_comparable(old: ScenarioResult | None, new: ScenarioResult | None) -> str:
    if old is None or new is None:
        return "only in the new result" if old is None else "only in the old result"
    if {run.scenario_version for run in old.runs} != {run.scenario_version for run in new.runs}:
        return "the scenario was changed in between"
    if not old.outcomes or not new.outcomes:
        return "nothing was measured on one side"
    return _judged_otherwise(old, new)


def _paired(old: ScenarioResult, new: ScenarioResult) -> list[tuple[bool, bool]]:
    both = sorted(old.outcomes.keys() & new.outcomes.keys())
    return [(old.outcomes[repeat], new.outcomes[repeat]) for repeat in both]


_WORDS = {
    Change.REGRESSED: "REGRESSED",
    Change.IMPROVED: "IMPROVED",
    Change.NO_DIFFERENCE: "NO DIFFERENCE SHOWN",
    Change.TOO_FEW: "TOO FEW TO TELL",
    Change.UNTESTED: "COULD NOT TEST",
}


def readable(comparison: Comparison) -> tuple[str, ...]:
    """The comparison in sentences, the verdict first."""
    lines = [
        f"{_WORDS[comparison.verdict]}: {comparison.before or 'before'} -> {comparison.now or 'now'}",
        _figures(comparison.pairs, comparison.difference),
        *_advice(comparison),
        *comparison.untested,
        *comparison.warnings,
        *map(_scenario_line, sorted(comparison.scenarios, key=lambda scenario: scenario.moved)),
        *(f"  not compared: {name}, {reason}" for name, reason in comparison.left_out),
    ]
    if comparison.unpaired:
        lines.append(f"  {comparison.unpaired} repeats were measured on one side only and are in no pair.")
    return tuple(line for line in lines if line)


def _figures(pairs: Pairs, difference: Interval) -> str:
    return (
        f"Passed {_share(pairs.before)} before and {_share(pairs.after)} now, over {pairs.n} pairs: {pairs.worse} got "
        f"worse, {pairs.better} better (exact McNemar {_p(pairs.p_value)}; the rate changed by "
        f"{100 * difference.low:+.0f} to {100 * difference.high:+.0f} points)."
    )


def _share(rate: Rate) -> str:
    return "nothing" if rate.value is None else f"{rate.value:.0%} ({rate.successes} of {rate.n})"


def _advice(comparison: Comparison) -> tuple[str, ...]:
    if comparison.verdict is not Change.TOO_FEW:
        return ()
    drop = -100 * comparison.difference.low
    return (f"A drop of up to {drop:.0f} points can't be ruled out. Run more scenarios, or each of them more often.",)


def _scenario_line(scenario: ScenarioChange) -> str:
    if not scenario.moved:
        return ""
    shown = ", shown by itself" if scenario.change else ""
    return (
        f"  {'worse' if scenario.moved < 0 else 'better'}: {scenario.scenario} passed {_share(scenario.before)}, now "
        f"{_share(scenario.now)} (corrected {_p(scenario.adjusted_p)}{shown})"
    )


def _p(value: float) -> str:
    # No test gives a probability of nothing.
    return f"p = {value:.3f}" if round(value, 3) else "p < 0.001"
