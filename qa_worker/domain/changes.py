"""Comparing the verdicts of calls under an older rubric version with those under the current one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qa_worker.domain.evaluation import Verdict


@dataclass(frozen=True, slots=True)
class Graded:
    """One verdict of a call; `overall` is 0-100, None where nothing was measured."""

    verdict: Verdict
    overall: int | None
    rubric: str
    version: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A call with its current verdict and the latest older one; None where it has no older one."""

    call: str
    workspace: str
    agent: str
    before: Graded | None
    after: Graded


@dataclass(slots=True)
class Changes:
    """What changed. `graded` calls have a current verdict, `compared` of them an older one too.

    `matrix` counts compared calls by (verdict before, verdict after). The scores of `both_measured` calls went from
    `before_sum` to `after_sum`, added up. `changed` holds the first of the calls whose verdict changed.
    """

    graded: int = 0
    compared: int = 0
    matrix: Counter[tuple[Verdict, Verdict]] = field(default_factory=Counter)
    both_measured: int = 0
    before_sum: int = 0
    after_sum: int = 0
    changed: list[Pair] = field(default_factory=list)

    def add(self, pairs: Iterable[Pair], *, keep: int) -> None:
        """Count these, and keep the changed ones until there are `keep` of them."""
        for pair in pairs:
            self.graded += 1
            if pair.before is not None:
                self._compare(pair, pair.before, keep)

    def _compare(self, pair: Pair, before: Graded, keep: int) -> None:
        after = pair.after
        self.compared += 1
        self.matrix[before.verdict, after.verdict] += 1
        if before.overall is not None and after.overall is not None:
            self.both_measured += 1
            self.before_sum += before.overall
            self.after_sum += after.overall
        if before.verdict is not after.verdict and len(self.changed) < keep:
            self.changed.append(pair)

    @property
    def changed_count(self) -> int:
        """How many compared calls have another verdict now."""
        return sum(count for (before, after), count in self.matrix.items() if before is not after)

    @property
    def mean_change(self) -> float | None:
        """Points by which the score changed on average, over the calls where both were measured; None where none was."""
        return (self.after_sum - self.before_sum) / self.both_measured if self.both_measured else None

    def rows(self) -> Mapping[Verdict, Mapping[Verdict, int]]:
        """The matrix by the verdict before, without verdicts that nobody had."""
        seen = [verdict for verdict in Verdict if any(verdict in pair for pair in self.matrix)]
        return {before: {after: self.matrix[before, after] for after in seen} for before in seen}
