"""What ops want to hear of, and what of an evaluation or an event matches it.

A rule is a floor: `score_below` speaks of scores under its threshold, and nothing can be told to alert above one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.evaluation import Evaluation, Verdict
from qa_worker.domain.rubric import Severity


class AlertSeverity(StrEnum):
    """How loud an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class RuleKind(StrEnum):
    """What a rule looks at."""

    EVALUATION_FAILED = "evaluation_failed"
    SCORE_BELOW = "score_below"
    CRITICAL_FINDING = "critical_finding"
    NEEDS_REVIEW = "needs_review"
    NOT_EVALUATED = "not_evaluated"
    """A call that was given up on: no verdict at all."""
    RUN_FAILED = "run_failed"
    SUITE_FAILED = "suite_failed"
    FAILURE_RATE = "failure_rate"
    BREAKER_OPEN = "breaker_open"
    BUDGET_REACHED = "budget_reached"
    DEAD_LETTERS_GROWING = "dead_letters_growing"
    DEAD_LETTERS_DEPTH = "dead_letters_depth"
    """So many wait for somebody."""
    DEAD_LETTERS_AGE = "dead_letters_age"
    """The oldest one has waited for so long."""
    QUEUE_TOO_OLD = "queue_too_old"


OF_EVALUATIONS = frozenset(
    {
        RuleKind.EVALUATION_FAILED,
        RuleKind.SCORE_BELOW,
        RuleKind.CRITICAL_FINDING,
        RuleKind.NEEDS_REVIEW,
        RuleKind.NOT_EVALUATED,
    }
)
"""Looked at whenever an evaluation is recorded."""

CONDITIONS = frozenset(
    {
        RuleKind.FAILURE_RATE,
        RuleKind.BREAKER_OPEN,
        RuleKind.BUDGET_REACHED,
        RuleKind.DEAD_LETTERS_GROWING,
        RuleKind.DEAD_LETTERS_DEPTH,
        RuleKind.DEAD_LETTERS_AGE,
        RuleKind.QUEUE_TOO_OLD,
    }
)
"""What lasts for a while and is looked at again and again: one match when it begins, none while it lasts."""

OF_SYSTEM = CONDITIONS - {RuleKind.FAILURE_RATE}
"""Conditions that concern no single agent."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule of a workspace. `agent_id` None is every agent, each with incidents of its own.

    `threshold` is a score (`score_below`), a share 0-1 (`failure_rate`, `budget_reached`), a number of letters
    (`dead_letters_growing`, `dead_letters_depth`) or seconds (`dead_letters_age`, `queue_too_old`). `window_s`,
    `min_samples`, `baseline` and `rise` are about rates: see `qa_worker.domain.failure_rate`. After an alert its matches
    are gathered for `cooldown_s`.
    """

    id: uuid.UUID
    workspace: WorkspaceId
    name: str
    kind: RuleKind
    severity: AlertSeverity
    agent_id: uuid.UUID | None = None
    criterion: str = ""
    threshold: float | None = None
    window_s: int | None = None
    min_samples: int | None = None
    baseline: bool = False
    rise: float | None = None
    cooldown_s: int = 900
    enabled: bool = True

    def concerns(self, agent_id: uuid.UUID | None) -> bool:
        """True where this rule is about that agent."""
        return self.agent_id is None or self.agent_id == agent_id


@dataclass(frozen=True, slots=True)
class Match:
    """One cause that matched one rule. `id` is made of both: a cause matches a rule once, however often it is looked at.

    `detail` says why in words that hold nothing of a transcript. `overall` is 0-100, None where nothing was measured.
    """

    id: uuid.UUID
    rule_id: uuid.UUID
    agent_id: uuid.UUID | None
    cause: str
    detail: str
    matched_at: datetime
    evaluation_id: uuid.UUID | None = None
    overall: int | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """An evaluation and whose it is, in the words that rules use. `evaluation` None: it was given up on, for `reason`."""

    evaluation_id: uuid.UUID
    agent_id: uuid.UUID
    at: datetime
    evaluation: Evaluation | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something else that happened: a run or a suite that failed, a condition that began. `cause` tells it from others."""

    kind: RuleKind
    cause: str
    agent_id: uuid.UUID | None
    at: datetime
    detail: str


def matching(rules: Iterable[AlertRule], graded: Graded) -> tuple[Match, ...]:
    """What this evaluation matches, in the order of the rules."""
    overall = graded.evaluation.overall if graded.evaluation else None
    cause = str(graded.evaluation_id)
    return tuple(
        Match(
            match_id(rule.id, cause),
            rule.id,
            graded.agent_id,
            cause,
            detail,
            graded.at,
            evaluation_id=graded.evaluation_id,
            overall=overall,
        )
        for rule in rules
        if rule.enabled and rule.concerns(graded.agent_id)
        if (detail := _why(rule, graded)) is not None
    )


def matching_event(rules: Iterable[AlertRule], event: Event) -> tuple[Match, ...]:
    """What this event matches, in the order of the rules."""
    return tuple(
        Match(match_id(rule.id, event.cause), rule.id, event.agent_id, event.cause, event.detail, event.at)
        for rule in rules
        if rule.enabled and rule.kind is event.kind and rule.concerns(event.agent_id)
    )


def match_id(rule_id: uuid.UUID, cause: str) -> uuid.UUID:
    """The id of the match of this cause with this rule."""
    return uuid.uuid5(rule_id, cause)


def _why(rule: AlertRule, graded: Graded) -> str | None:
    """Why the rule matches, or None where it doesn't."""
    evaluation = graded.evaluation
    if evaluation is None:
        return f"not evaluated: {graded.reason}" if rule.kind is RuleKind.NOT_EVALUATED else None
    match rule.kind:
        case RuleKind.EVALUATION_FAILED if evaluation.verdict is Verdict.FAIL:
            return "failed: " + ", ".join(evaluation.reasons)
        case RuleKind.NEEDS_REVIEW if evaluation.verdict is Verdict.NEEDS_REVIEW:
            return "needs review: " + ", ".join(evaluation.reasons)
        case RuleKind.CRITICAL_FINDING:
            return _critical(rule, evaluation)
        case RuleKind.SCORE_BELOW:
            return _below(rule, evaluation)
        case _:
            return None


def _critical(rule: AlertRule, evaluation: Evaluation) -> str | None:
    wanted = rule.criterion.casefold()
    found = [f.criterion for f in evaluation.findings if f.severity is Severity.CRITICAL]
    of_criterion = sorted({name for name in found if not wanted or name.casefold() == wanted})
    return f"critical finding in {', '.join(of_criterion)}" if of_criterion else None


def _below(rule: AlertRule, evaluation: Evaluation) -> str | None:
    """Only what was measured can be low: a score that is None says nothing."""
    name, score = rule.criterion or "overall", evaluation.overall
    if rule.criterion:
        score = _score_of(rule.criterion, evaluation)
    if score is None or rule.threshold is None or score >= rule.threshold:
        return None
    return f"{name} {score} is below {rule.threshold:g}"


def _score_of(criterion: str, evaluation: Evaluation) -> int | None:
    wanted = criterion.casefold()
    return next((score.score for score in evaluation.scores if score.criterion.casefold() == wanted), None)
