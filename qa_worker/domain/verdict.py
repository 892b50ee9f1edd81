"""From a judge's assessment to a verdict. Nothing that wasn't measured becomes a pass, a fail, a zero or a hole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from qa_worker.domain.evaluation import (
    Assessment,
    CriterionLevel,
    CriterionScore,
    Evaluation,
    Finding,
    Source,
    Verdict,
)
from qa_worker.domain.quotes import find_quote
from qa_worker.domain.rubric import Criterion, Rubric, Severity, score_of
from qa_worker.domain.transcript import Transcript

MEDIAN_OF = "median_of:"
"""Begins the reason code that says of how many answers the result is the median."""

UNREADABLE = "unreadable:"
"""Begins the reason code of a call whose judge gave no usable answer."""

_MEASURED_AT_LEAST = 0.5


def decide(
    assessment: Assessment, *, rubric: Rubric, transcript: Transcript, established: Sequence[Finding] = ()
) -> Evaluation:
    """The evaluation that follows from an assessment.

    `established` are findings that checks have proven (a required phrase is missing, a forbidden one was said); they
    need no quote. A finding of the model whose quote nobody said is dropped and counted. The order of the verdicts:

    1. a critical finding in a criterion with `critical_fails` or proven by a check, a criterion under its `minimum`, an
       overall score under the threshold: `fail`, if a finding in a criterion that pulled it down supports it, else
       `needs_review`;
    2. a criterion that was not measured, a critical finding whose quote nobody said or that only a minority of several
       answers holds, a hard criterion that the judge calls not applicable, less than half of the weight measured:
       `needs_review`;
    3. otherwise `pass`.
    """
    quoted, dropped = _keep_quoted(assessment.findings, transcript)
    findings = (*established, *quoted)
    scores = tuple(_score(criterion, assessment.levels) for criterion in rubric.criteria)
    overall = _overall(scores)
    against = tuple(_reasons_against(rubric, scores, findings, overall))
    supported = _supported(against, rubric, scores, findings)
    doubts = (*_lost_criticals(rubric, dropped), *_disputed(rubric, assessment), *_unmeasured(rubric, scores))
    verdict, reasons = _verdict(against, doubts, supported=supported)
    counted = (f"{MEDIAN_OF}{assessment.votes}",) if assessment.votes > 1 else ()
    return Evaluation(
        verdict=verdict,
        overall=overall,
        scores=scores,
        findings=findings,
        reasons=(*reasons, *counted),
        summary=assessment.summary,
        dropped_quotes=len(dropped),
    )


def overall_score(assessment: Assessment, *, rubric: Rubric) -> int | None:
    """The overall score (0-100) that `decide` gives for these levels; None where nothing was measured."""
    return _overall(_score(criterion, assessment.levels) for criterion in rubric.criteria)


def could_not_read(*, rubric: Rubric, code: str, established: Sequence[Finding] = ()) -> Evaluation:
    """The evaluation of a call whose judge gave no usable answer after all attempts: a person must look."""
    scores = tuple(CriterionScore(c.id, None, None, applicable=True, weight=c.weight) for c in rubric.criteria)
    return Evaluation(
        verdict=Verdict.NEEDS_REVIEW,
        overall=None,
        scores=scores,
        findings=tuple(established),
        reasons=(f"{UNREADABLE}{code}",),
        summary="The judge's answer could not be used.",
    )


def _keep_quoted(findings: Iterable[Finding], transcript: Transcript) -> tuple[list[Finding], list[Finding]]:
    kept: list[Finding] = []
    dropped: list[Finding] = []
    for finding in findings:
        if finding.source is Source.EVIDENCE:
            kept.append(finding)
            continue
        turn = find_quote(transcript, finding.quote, turn=finding.turn)
        if turn is None:
            dropped.append(finding)
        else:
            kept.append(replace(finding, turn=turn))
    return kept, dropped


def _score(criterion: Criterion, levels: Iterable[CriterionLevel]) -> CriterionScore:
    given = next((level for level in levels if level.criterion == criterion.id), None)
    if given is None:
        return CriterionScore(criterion.id, None, None, applicable=True, weight=criterion.weight)
    level = given.level if given.applicable else None
    score = None if level is None else score_of(level)
    return CriterionScore(criterion.id, score, level, given.applicable, criterion.weight, given.explanation)


def _overall(scores: Iterable[CriterionScore]) -> int | None:
    measured = [(s.score, s.weight) for s in scores if s.score is not None]
    weight = sum(w for _, w in measured)
    if not weight:
        return None
    return int(sum(score * w for score, w in measured) / weight + 0.5)


def _reasons_against(
    rubric: Rubric, scores: Sequence[CriterionScore], findings: Sequence[Finding], overall: int | None
) -> Iterable[str]:
    for criterion in rubric.criteria:
        critical = [f for f in findings if f.criterion == criterion.id and f.severity is Severity.CRITICAL]
        if criterion.critical_fails and critical:
            yield f"critical:{criterion.id}"
        elif any(finding.source is Source.EVIDENCE for finding in critical):
            # Proven, not judged: a required tool that was never called fails a call in any criterion.
            yield f"proven:{criterion.id}"
    for criterion, score in zip(rubric.criteria, scores, strict=True):
        if criterion.minimum is not None and score.score is not None and score.score < criterion.minimum:
            yield f"below_minimum:{criterion.id}"
    if overall is not None and overall < rubric.pass_threshold:
        yield "below_threshold"


def _lost_criticals(rubric: Rubric, dropped: Iterable[Finding]) -> Iterable[str]:
    """A critical finding whose quote can't be found is no proof, and no reason to pass the call either."""
    hard = {criterion.id for criterion in rubric.criteria if criterion.critical_fails}
    found = {f.criterion for f in dropped if f.severity is Severity.CRITICAL and f.criterion in hard}
    return (f"critical_unquoted:{criterion}" for criterion in sorted(found))


def _disputed(rubric: Rubric, assessment: Assessment) -> Iterable[str]:
    """What only some of several answers call critical doesn't fail a call, and doesn't let it pass unseen either."""
    hard = (criterion.id for criterion in rubric.criteria if criterion.critical_fails)
    return (f"critical_disputed:{criterion}" for criterion in hard if criterion in assessment.disputed)


def _unmeasured(rubric: Rubric, scores: Sequence[CriterionScore]) -> Iterable[str]:
    for criterion, score in zip(rubric.criteria, scores, strict=True):
        if score.applicable and score.score is None:
            yield f"not_measured:{criterion.id}"
        elif not score.applicable and criterion.critical_fails:
            # What can fail a call by itself always applies; a judge that says otherwise has not looked.
            yield f"not_applicable:{criterion.id}"
    measured = sum(score.weight for score in scores if score.score is not None)
    if measured < _MEASURED_AT_LEAST * sum(score.weight for score in scores):
        yield "too_little_measured"


def _supported(
    against: Sequence[str], rubric: Rubric, scores: Sequence[CriterionScore], findings: Sequence[Finding]
) -> bool:
    named = {reason.partition(":")[2] for reason in against}
    low = {s.criterion for s in scores if s.score is not None and s.score < rubric.pass_threshold}
    return any(finding.criterion in named | low for finding in findings)


def _verdict(against: tuple[str, ...], doubts: tuple[str, ...], *, supported: bool) -> tuple[Verdict, tuple[str, ...]]:
    if against:
        return (Verdict.FAIL, against) if supported else (Verdict.NEEDS_REVIEW, (*against, "nothing_supports_failing"))
    return (Verdict.NEEDS_REVIEW, doubts) if doubts else (Verdict.PASS, ())
