"""What a call is graded by: criteria with anchored levels, weights, a pass threshold, hard failures.

A rubric is versioned by a fingerprint of its content together with the judge that applies it, so that a verdict
always says exactly what it was measured with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from qa_worker.domain.transcript import canonical

LEVELS = (1, 2, 3, 4, 5)


class Severity(StrEnum):
    """How bad a finding is."""

    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"


class JudgeKind(StrEnum):
    """Who grades: Claude, or the rules that look at evidence alone."""

    CLAUDE = "claude"
    RULES = "rules"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question about a call. `levels` says what each of the levels 1 to 5 means.

    `weight` is relative to the other criteria. With `critical_fails`, a critical finding fails the call whatever its
    score. `minimum` (0-100) fails a call whose score on this criterion alone is lower.
    """

    id: str
    title: str
    question: str
    levels: Mapping[int, str]
    weight: float = 1.0
    critical_fails: bool = False
    minimum: int | None = None


@dataclass(frozen=True, slots=True)
class PhraseRule:
    """A phrase that agents must or must not say, the criterion it counts for, and how bad a breach is."""

    phrase: str
    criterion: str
    severity: Severity = Severity.MAJOR


@dataclass(frozen=True, slots=True)
class Checks:
    """What the evidence checks look for in every call under a rubric, next to what the call itself expects.

    `slow_response_s` and `dead_air_s` are seconds. Default 4 s of silence: tau2 marks a pause from 4.0 s
    (`src/tau2/config.py`); default 3.5 s of latency: EVA's latency curve reaches 0 there (`docs/metrics/turn_taking.md`).
    """

    required_phrases: tuple[PhraseRule, ...] = ()
    forbidden_phrases: tuple[PhraseRule, ...] = ()
    slow_response_s: float = 3.5
    dead_air_s: float = 4.0


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """The judge and its settings; they are part of the rubric version, because they change what is measured.

    `votes` (odd, 1 to 9) is how many answers a call gets whose score lies within `borderline` points (0-100) of the
    pass threshold; 1 is off.
    """

    kind: JudgeKind
    model: str = ""
    effort: str = ""
    max_tokens: int = 0
    votes: int = 1
    borderline: int = 0


@dataclass(frozen=True, slots=True)
class Rubric:
    """Criteria, a pass threshold (0-100, on the weighted overall score) and checks."""

    name: str
    criteria: tuple[Criterion, ...]
    pass_threshold: int = 70
    guidance: str = ""
    checks: Checks = field(default_factory=Checks)

    def criterion(self, criterion_id: str) -> Criterion | None:
        """The criterion with this id, compared without regard to case, or None."""
        wanted = criterion_id.strip().casefold()
        return next((c for c in self.criteria if c.id.casefold() == wanted), None)


def score_of(level: int) -> int:
    """A level 1-5 as the 0-100 that people see: (level - 1) / 4, EVA's normalisation (r - 1) / (max - 1)."""
    return (level - 1) * 25


def fingerprint(rubric: Rubric, judge: JudgeSpec, *, prompt_version: str = "") -> str:
    """64 hex digits that change whenever what is measured, or what measures it, changes."""
    settings = asdict(judge)
    if judge.votes == 1:
        # One answer is what versions from before there were votes measure with: they stay what they are.
        del settings["votes"], settings["borderline"]
    content = {"rubric": asdict(rubric), "judge": settings, "prompt": prompt_version}
    return hashlib.sha256(canonical(content).encode()).hexdigest()
