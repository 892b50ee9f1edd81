"""What a judge says of a call, and what is stored of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from qa_worker.domain.rubric import Severity


class Verdict(StrEnum):
    """The four things that can be said of a call. Only PASS and FAIL were measured."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    NEEDS_REVIEW = "needs_review"
    NOT_EVALUATED = "not_evaluated"


class Source(StrEnum):
    """Where a finding comes from: the model, or a check that anyone can repeat."""

    MODEL = "model"
    EVIDENCE = "evidence"


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong. `turn` and `quote` point at the place; an omission found by a check has neither."""

    criterion: str
    severity: Severity
    explanation: str
    turn: int | None = None
    quote: str = ""
    source: Source = Source.MODEL
    check: str = ""


@dataclass(frozen=True, slots=True)
class CriterionLevel:
    """What a judge gave for one criterion.

    `level` is 1-5, or None where it was not measured (the judge had nothing to measure it by). `applicable` False means
    that the call gives no occasion for the criterion, which takes it out of the weighting.
    """

    criterion: str
    level: int | None
    explanation: str = ""
    applicable: bool = True


@dataclass(frozen=True, slots=True)
class Assessment:
    """A judge's whole answer, before anything is decided from it.

    `votes` says of how many answers it is the median, `disputed` names the criteria in which a minority of them found
    something critical: see `qa_worker.domain.votes`.
    """

    levels: tuple[CriterionLevel, ...]
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    votes: int = 1
    disputed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request as the provider counts them; thinking tokens are inside `output_tokens`.

    The whole prompt is `input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens`.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Every token of the prompt, cached or not."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """One criterion of a stored evaluation; `score` is 0-100, None where not measured or not applicable."""

    criterion: str
    score: int | None
    level: int | None
    applicable: bool
    weight: float
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The decided result. `overall` is 0-100 over the measured criteria, None where nothing was measured.

    `reasons` says in short codes why the verdict is what it is (`below_threshold`, `critical:compliance`, ...), and
    ends in `median_of:3` where it was decided from the median of 3 answers.
    `dropped_quotes` counts findings that quoted what nobody said.
    """

    verdict: Verdict
    overall: int | None
    scores: tuple[CriterionScore, ...]
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    summary: str = ""
    dropped_quotes: int = 0
    notes: tuple[str, ...] = field(default=())
