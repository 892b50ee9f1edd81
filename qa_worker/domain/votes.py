"""Several answers of a judge about one call, made into one: for scores that lie too near to the threshold for one answer.

The models have no temperature and no seed, so the same question gets answers that differ by a level now and then. Far
from the threshold that changes nothing, next to it a verdict is a coin's toss: there the median of several decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding
from qa_worker.domain.rubric import LEVELS, Rubric, Severity
from qa_worker.domain.verdict import overall_score


def is_borderline(assessment: Assessment, *, rubric: Rubric, points: int) -> bool:
    """Whether the overall score that follows lies within `points` of the pass threshold, on either side.

    A call of which nothing was measured has no score, and more answers are no remedy for that.
    """
    overall = overall_score(assessment, rubric=rubric)
    return overall is not None and abs(overall - rubric.pass_threshold) <= points


def majority(votes: Sequence[Assessment]) -> Assessment:
    """What most of these answers, at least one, say together.

    *Levels*: a criterion does not apply where most votes say so, is not measured where most did not measure it, and
    else gets the median of those that did; of two in the middle the lower, for a doubtful call should rather fail or be
    looked at than pass.

    *Findings* are matched by criterion alone: two answers rarely quote the same words for the same fault. They are kept
    for the criteria in which most votes found something, and of each criterion those of one vote, so that nothing is
    listed twice: the vote nearest to the medians among those that found something critical there, or else among all that
    found something. `critical` stands where most votes say so. Where a minority does, its critical findings are kept as
    major ones and the criterion is `disputed`: what may be real harm neither fails a call on one vote of three, nor
    vanishes because the others missed it.

    Summary and explanations come from the vote nearest to the medians.
    """
    criteria = list(dict.fromkeys(level.criterion for vote in votes for level in vote.levels))
    medians = [_median([_given(vote, criterion) for vote in votes]) for criterion in criteria]
    nearest = sorted(votes, key=lambda vote: sum(_apart(_given(vote, level.criterion), level) for level in medians))
    findings, disputed = _findings(nearest)
    return Assessment(
        levels=tuple(_explained(level, nearest) for level in medians),
        findings=findings,
        summary=nearest[0].summary,
        votes=len(votes),
        disputed=disputed,
    )


def _given(vote: Assessment, criterion: str) -> CriterionLevel:
    return next((level for level in vote.levels if level.criterion == criterion), CriterionLevel(criterion, None))


def _measured(level: CriterionLevel) -> int | None:
    return level.level if level.applicable else None


def _most(some: int, votes: int) -> bool:
    return some * 2 > votes


def _median(given: Sequence[CriterionLevel]) -> CriterionLevel:
    criterion, count = given[0].criterion, len(given)
    measured = [level for level in map(_measured, given) if level is not None]
    if _most(sum(not level.applicable for level in given), count):
        return CriterionLevel(criterion, None, applicable=False)
    if _most(count - len(measured), count):
        return CriterionLevel(criterion, None)
    return CriterionLevel(criterion, sorted(measured)[(len(measured) - 1) // 2])


def _apart(given: CriterionLevel, median: CriterionLevel) -> int:
    """How many levels a vote is away in one criterion: from measured to not measured is further than any two levels."""
    here, there = _measured(given), _measured(median)
    if here is None or there is None:
        return 0 if here is there else len(LEVELS)
    return abs(here - there)


def _explained(median: CriterionLevel, nearest: Sequence[Assessment]) -> CriterionLevel:
    same = (given for vote in nearest if _same(given := _given(vote, median.criterion), median))
    return replace(median, explanation=next(same).explanation)


def _same(given: CriterionLevel, median: CriterionLevel) -> bool:
    return given.applicable == median.applicable and _measured(given) == _measured(median)


def _findings(nearest: Sequence[Assessment]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The findings that are kept, and the criteria in which only a minority found something critical."""
    found = [{finding.criterion for finding in vote.findings} for vote in nearest]
    critical = [{f.criterion for f in vote.findings if f.severity is Severity.CRITICAL} for vote in nearest]
    agreed, harm = _agreed(found), _agreed(critical)
    source: dict[str, int] = {}
    for by_vote in (critical, found):
        for number, criteria in enumerate(by_vote):
            source = dict.fromkeys(criteria, number) | source
    kept = (
        finding
        for number, vote in enumerate(nearest)
        for finding in _kept([f for f in vote.findings if source[f.criterion] == number], agreed, harm)
    )
    return tuple(kept), tuple(sorted(set().union(*critical) - harm))


def _agreed(by_vote: Sequence[set[str]]) -> set[str]:
    counts = Counter(chain.from_iterable(by_vote))
    return {criterion for criterion, count in counts.items() if _most(count, len(by_vote))}


def _kept(findings: Sequence[Finding], agreed: set[str], harm: set[str]) -> Iterator[Finding]:
    for finding in findings:
        if finding.severity is Severity.CRITICAL and finding.criterion not in harm:
            yield replace(finding, severity=Severity.MAJOR)
        elif finding.criterion in agreed:
            yield finding
