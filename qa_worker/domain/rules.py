"""The judge that needs no model: findings and levels from evidence alone.

It measures only what evidence can show. A criterion that no check could look at has no level, so that a call is never
passed by a judge that could not have failed it; the verdict is then `needs_review`, unless something else failed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding, Source
from qa_worker.domain.evidence.facts import Check, Evidence, Fact
from qa_worker.domain.rubric import Criterion, PhraseRule, Rubric, Severity

INTENT, TOOLS, COMPLIANCE, QUALITY = "intent_completion", "tool_usage", "compliance", "response_quality"


@dataclass(frozen=True, slots=True)
class _Weighs:
    """Which criterion a fact counts for, how bad it is, and how many of the five levels it takes away."""

    criterion: str
    severity: Severity
    levels: int


# Our own judgement, stated once: what breaks the outcome takes a criterion to the bottom, what only annoys takes one
# level. A tool that fails is not yet the agent's fault; claiming success after it is.
_WEIGHS: dict[Check, _Weighs] = {
    Check.MISSING_REQUIRED_TOOL: _Weighs(INTENT, Severity.CRITICAL, 4),
    Check.CLAIM_AFTER_FAILED_TOOL: _Weighs(INTENT, Severity.CRITICAL, 4),
    Check.ABRUPT_END: _Weighs(INTENT, Severity.MAJOR, 3),
    Check.UNANSWERED_CALLER: _Weighs(INTENT, Severity.MAJOR, 3),
    Check.UNSAID_IDENTIFIER: _Weighs(TOOLS, Severity.MAJOR, 3),
    Check.MALFORMED_TOOL_CALL: _Weighs(TOOLS, Severity.MAJOR, 2),
    Check.REPEATED_TOOL_CALL: _Weighs(TOOLS, Severity.MINOR, 1),
    Check.FAILED_TOOL_CALL: _Weighs(TOOLS, Severity.MINOR, 1),
    Check.FORBIDDEN_TOOL: _Weighs(COMPLIANCE, Severity.CRITICAL, 4),
    Check.FORBIDDEN_PHRASE: _Weighs(COMPLIANCE, Severity.CRITICAL, 4),
    Check.MISSING_REQUIRED_PHRASE: _Weighs(COMPLIANCE, Severity.MAJOR, 3),
    Check.AGENT_LOOP: _Weighs(QUALITY, Severity.MAJOR, 3),
    Check.REPEATED_PROMPT: _Weighs(QUALITY, Severity.MINOR, 1),
    Check.SLOW_RESPONSE: _Weighs(QUALITY, Severity.MINOR, 1),
    Check.DEAD_AIR: _Weighs(QUALITY, Severity.MINOR, 1),
    Check.AGENT_INTERRUPTS: _Weighs(QUALITY, Severity.MINOR, 1),
}
_LEVELS_BY_SEVERITY = {Severity.MINOR: 1, Severity.MAJOR: 3, Severity.CRITICAL: 4}
# Facts of these kinds are breaches of what someone wrote down, not signs to be weighed: they hold for every judge.
_CONFIGURED = (
    Check.MISSING_REQUIRED_TOOL,
    Check.FORBIDDEN_TOOL,
    Check.MISSING_REQUIRED_PHRASE,
    Check.FORBIDDEN_PHRASE,
)
# A criterion counts as measured when one of these had something to look at.
_DECIDES: dict[str, frozenset[Check]] = {
    INTENT: frozenset({Check.MISSING_REQUIRED_TOOL}),
    TOOLS: frozenset({Check.REPEATED_TOOL_CALL, Check.UNSAID_IDENTIFIER, Check.FAILED_TOOL_CALL}),
    COMPLIANCE: frozenset({Check.FORBIDDEN_TOOL, Check.FORBIDDEN_PHRASE, Check.MISSING_REQUIRED_PHRASE}),
    QUALITY: frozenset({Check.AGENT_LOOP, Check.REPEATED_PROMPT}),
}
_MINOR_LEVELS_AT_MOST = 2


def established(evidence: Evidence, *, rubric: Rubric) -> tuple[Finding, ...]:
    """Breaches of configured expectations, as findings that hold whatever a judge says."""
    return tuple(_finding(fact, rubric) for fact in evidence.of(*_CONFIGURED))


def capped(assessment: Assessment, evidence: Evidence, *, rubric: Rubric) -> Assessment:
    """A model's assessment, no criterion higher than the established breaches allow: they cost the same with any judge."""
    lost = _levels_lost(evidence.of(*_CONFIGURED), rubric)
    return replace(assessment, levels=tuple(_capped(level, lost[level.criterion]) for level in assessment.levels))


def _capped(level: CriterionLevel, lost: int) -> CriterionLevel:
    if not lost:
        return level
    highest = max(1, 5 - lost)
    # A breach was proven: whatever the model says, the criterion applies to this call.
    return replace(level, applicable=True, level=highest if level.level is None else min(level.level, highest))


def assess(evidence: Evidence, *, rubric: Rubric, has_tools: bool) -> Assessment:
    """An assessment from evidence alone.

    `has_tools` says whether the agent had any tool to use: without one, and without a tool call, the criterion
    `tool_usage` does not apply. Criteria other than the four standard ones are not measured.
    """
    findings = tuple(_finding(fact, rubric) for fact in evidence.facts)
    lost = _levels_lost(evidence.facts, rubric)
    levels = tuple(_level(c, evidence, lost[c.id], has_tools=has_tools) for c in rubric.criteria)
    return Assessment(levels=levels, findings=findings, summary=_summary(levels, findings))


def _finding(fact: Fact, rubric: Rubric) -> Finding:
    weighs = _weighs(fact, rubric)
    return Finding(
        criterion=weighs.criterion,
        severity=weighs.severity,
        explanation=fact.detail,
        turn=fact.turn,
        quote=fact.quote,
        source=Source.EVIDENCE,
        check=fact.check.value,
    )


def _weighs(fact: Fact, rubric: Rubric) -> _Weighs:
    phrases: Sequence[PhraseRule] = ()
    if fact.check is Check.FORBIDDEN_PHRASE:
        phrases = rubric.checks.forbidden_phrases
    elif fact.check is Check.MISSING_REQUIRED_PHRASE:
        phrases = rubric.checks.required_phrases
    for rule in phrases:
        if rule.phrase == fact.subject:
            return _Weighs(rule.criterion, rule.severity, _LEVELS_BY_SEVERITY[rule.severity])
    weighs = _WEIGHS[fact.check]
    if rubric.criterion(weighs.criterion) is not None:
        return weighs
    # A rubric without the standard criterion still must not lose the fact: it counts for the first one.
    return _Weighs(rubric.criteria[0].id, weighs.severity, weighs.levels)


def _levels_lost(facts: Sequence[Fact], rubric: Rubric) -> Counter[str]:
    lost: Counter[str] = Counter()
    minor: Counter[Check] = Counter()
    for fact in facts:
        weighs = _weighs(fact, rubric)
        levels = weighs.levels
        if weighs.severity is Severity.MINOR:
            levels = min(levels, _MINOR_LEVELS_AT_MOST - minor[fact.check])
            minor[fact.check] += levels
        lost[weighs.criterion] += levels
    return lost


def _level(criterion: Criterion, evidence: Evidence, lost: int, *, has_tools: bool) -> CriterionLevel:
    if criterion.id == TOOLS and not has_tools and not lost:
        return CriterionLevel(criterion.id, None, "The agent had no tools.", applicable=False)
    decides = _DECIDES.get(criterion.id, frozenset())
    if not lost and not decides & evidence.applied:
        return CriterionLevel(criterion.id, None, "The rules had nothing to measure this by.")
    return CriterionLevel(criterion.id, max(1, 5 - lost), "From checks alone.")


def _summary(levels: Iterable[CriterionLevel], findings: Sequence[Finding]) -> str:
    unmeasured = [level.criterion for level in levels if level.applicable and level.level is None]
    found = (
        f"{len(findings)} finding{'s' if len(findings) != 1 else ''} by rules"
        if findings
        else "No fault found by rules"
    )
    return f"{found}; not measured: {', '.join(unmeasured)}." if unmeasured else f"{found}."
