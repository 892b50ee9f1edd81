"""What an alert says: one JSON document, fixed when the alert is raised, so that every try and replay sends the same bytes.

Its schema is docs/alerts.schema.json. Every event has the same keys; what doesn't apply is null or empty.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from qa_worker.domain.alert_rule import AlertSeverity, RuleKind
from qa_worker.domain.evaluation import CriterionScore, Finding
from qa_worker.domain.rubric import Severity
from qa_worker.domain.transcript import canonical

MAX_BYTES = 20_000
"""Standard Webhooks asks for less than 20 kB."""
_CAPS = (20, 10, 5, 3, 1, 0)
_NAME, _TEXT = 200, 500
_GRAVEST = (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR)


class AlertEvent(StrEnum):
    """The `type` of the document."""

    EVALUATION_FAILED = "evaluation.failed"
    SCORE_BELOW = "evaluation.score_below"
    CRITICAL_FINDING = "evaluation.critical_finding"
    NEEDS_REVIEW = "evaluation.needs_review"
    NOT_EVALUATED = "evaluation.not_evaluated"
    RUN_FAILED = "run.failed"
    SUITE_FAILED = "suite.failed"
    FAILURE_RATE = "failure_rate.exceeded"
    BREAKER_OPEN = "breaker.open"
    BUDGET_REACHED = "budget.reached"
    DEAD_LETTERS_GROWING = "dead_letters.growing"
    DEAD_LETTERS_DEPTH = "dead_letters.depth"
    DEAD_LETTERS_AGE = "dead_letters.age"
    QUEUE_TOO_OLD = "queue.too_old"
    INCIDENT_UPDATED = "incident.updated"
    INCIDENT_RESOLVED = "incident.resolved"
    ENDPOINT_DISABLED = "endpoint.disabled"
    TEST = "test"


EVENT_OF = {kind: AlertEvent[kind.name] for kind in RuleKind}
"""What the first match of a rule is told as."""


@dataclass(frozen=True, slots=True)
class Named:
    """Something with an id and a name; `ref` is the sender's own id, of agents."""

    id: uuid.UUID
    name: str
    ref: str = ""


@dataclass(frozen=True, slots=True)
class CalledBy:
    """A call in the words of whoever sent it."""

    id: uuid.UUID
    ref: str
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One match with what it is about. Scores and findings are filled where the case is told in full."""

    detail: str
    at: datetime
    call: CalledBy | None = None
    evaluation_id: uuid.UUID | None = None
    verdict: str | None = None
    overall: int | None = None
    reasons: tuple[str, ...] = ()
    summary: str = ""
    scores: tuple[CriterionScore, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleName:
    """The rule that an alert is raised by."""

    id: uuid.UUID
    name: str
    kind: RuleKind


@dataclass(frozen=True, slots=True)
class IncidentName:
    """The incident that an alert tells of; `match_count` is all of its matches so far."""

    id: uuid.UUID
    state: str
    opened_at: datetime
    match_count: int


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A receiver, without its address."""

    id: uuid.UUID
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Content:
    """All that one alert says. `case` is the one it tells in full, `worst` are those that a digest lists.

    `matches` counts what this alert tells of. `public_url` is where people can look at it; without it there are no links.
    """

    alert_id: uuid.UUID
    event: AlertEvent
    severity: AlertSeverity
    title: str
    at: datetime
    workspace: Named
    detail: str = ""
    agent: Named | None = None
    rule: RuleName | None = None
    incident: IncidentName | None = None
    case: Case | None = None
    worst: tuple[Case, ...] = ()
    matches: int = 0
    endpoint: EndpointName | None = None
    public_url: str = ""


def body_of(content: Content) -> bytes:
    """The document as canonical JSON in UTF-8, always less than `MAX_BYTES`.

    Long texts end in an ellipsis; lists lose their ends until it fits, and `left_out` says how many items each has lost.
    """
    body = b""
    for cap in _CAPS:
        body = canonical(_document(content, cap)).encode()
        if len(body) < MAX_BYTES:
            break
    return body


def _document(content: Content, cap: int) -> dict[str, Any]:
    case = content.case or Case("", content.at)
    lists = {
        "scores": [_score(score) for score in case.scores],
        "reasons": [_reason(finding) for finding in gravest_first(case.findings)],
        "worst": [_listed(one, content.public_url) for one in content.worst],
    }
    data = {
        "alert_id": str(content.alert_id),
        "severity": content.severity.value,
        "title": cut(content.title, _NAME),
        "detail": cut(content.detail or case.detail, _TEXT),
        "workspace": {"id": str(content.workspace.id), "name": cut(content.workspace.name, _NAME)},
        "agent": None if content.agent is None else _agent(content.agent),
        "rule": None if content.rule is None else _rule(content.rule),
        "incident": None if content.incident is None else _incident(content.incident),
        "endpoint": None if content.endpoint is None else _endpoint(content.endpoint),
        "call": None if case.call is None else _call(case.call),
        "evaluation": None if case.evaluation_id is None else {"id": str(case.evaluation_id)},
        "verdict": case.verdict,
        "overall": case.overall,
        "reason_codes": [cut(code, _NAME) for code in case.reasons[:cap]],
        "summary": cut(case.summary, _TEXT),
        "counts": {"matches": content.matches, "listed": min(len(content.worst), cap)},
        "left_out": {name: len(items) - len(items[:cap]) for name, items in lists.items()},
        "links": _links(content.public_url, case, content.alert_id),
        **{name: items[:cap] for name, items in lists.items()},
    }
    return {"type": content.event.value, "timestamp": iso(content.at), "data": data}


def gravest_first(findings: Sequence[Finding]) -> list[Finding]:
    """Findings in the order in which people want to read them."""
    return sorted(findings, key=lambda finding: _GRAVEST.index(finding.severity))


def cut(text: str, chars: int) -> str:
    """The text with at most so many characters; an ellipsis where some are missing."""
    return text if len(text) <= chars else text[: chars - 1] + "…"


def iso(at: datetime) -> str:
    """UTC with milliseconds: 2026-01-31T09:00:00.000Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _agent(agent: Named) -> dict[str, Any]:
    return {"id": str(agent.id), "ref": cut(agent.ref, _NAME), "name": cut(agent.name, _NAME)}


def _rule(rule: RuleName) -> dict[str, Any]:
    return {"id": str(rule.id), "name": cut(rule.name, _NAME), "kind": rule.kind.value}


def _incident(incident: IncidentName) -> dict[str, Any]:
    return {
        "id": str(incident.id),
        "state": incident.state,
        "opened_at": iso(incident.opened_at),
        "match_count": incident.match_count,
    }


def _endpoint(endpoint: EndpointName) -> dict[str, Any]:
    return {"id": str(endpoint.id), "name": cut(endpoint.name, _NAME), "kind": endpoint.kind}


def _call(call: CalledBy) -> dict[str, Any]:
    external = None if call.external_id is None else cut(call.external_id, _NAME)
    return {"id": str(call.id), "ref": cut(call.ref, _NAME), "external_id": external}


def _score(score: CriterionScore) -> dict[str, Any]:
    return {"criterion": cut(score.criterion, _NAME), "score": score.score, "applicable": score.applicable}


def _reason(finding: Finding) -> dict[str, Any]:
    return {
        "criterion": cut(finding.criterion, _NAME),
        "severity": finding.severity.value,
        "source": finding.source.value,
        "turn": finding.turn,
        "quote": cut(finding.quote, _TEXT),
        "explanation": cut(finding.explanation, _TEXT),
    }


def _listed(case: Case, public_url: str) -> dict[str, Any]:
    return {
        "at": iso(case.at),
        "call": None if case.call is None else _call(case.call),
        "evaluation": None if case.evaluation_id is None else {"id": str(case.evaluation_id)},
        "verdict": case.verdict,
        "overall": case.overall,
        "detail": cut(case.detail, _NAME),
        "links": _links(public_url, case),
    }


def _links(public_url: str, case: Case, alert_id: uuid.UUID | None = None) -> dict[str, str]:
    if not public_url:
        return {}
    base = public_url.rstrip("/")
    links = {} if case.call is None else {"call": f"{base}/calls/{case.call.id}"}
    return links if alert_id is None else {**links, "alert": f"{base}/alerts/{alert_id}"}
