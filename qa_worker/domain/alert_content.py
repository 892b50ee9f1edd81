"""What is said of an incident: its first match, a digest of those that were gathered, its end."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from qa_worker.domain.alert import EVENT_OF, AlertEvent, Case, Content, IncidentName, Named, RuleName, cut
from qa_worker.domain.alert_rule import AlertRule, AlertSeverity
from qa_worker.domain.incident import Incident, Say

WORST_LISTED = 10
TITLE_CHARS = 200


@dataclass(frozen=True, slots=True)
class About:
    """What an incident is about. `agent` None: the workspace, or the system."""

    rule: AlertRule
    workspace: Named
    agent: Named | None
    incident_id: uuid.UUID
    public_url: str = ""


def alert_id(incident_id: uuid.UUID, incident: Incident, say: Say) -> uuid.UUID:
    """The id of what is said of an incident that has come this far: the same thing is never said twice."""
    return uuid.uuid5(incident_id, f"{say.value}/{incident.match_count}")


def content_of(
    about: About, incident: Incident, say: Say, *, matches: int, cases: Sequence[Case], at: datetime
) -> Content:
    """The alert.

    A single match is told in full, under its rule's own event; several are `incident.updated` with the worst of `cases`
    (at most 10), except where they open the incident: then the worst is told in full and the others are listed. An end
    is told as information, whatever the rule's severity: nobody must get up for it.
    """
    alone = matches == 1
    in_full = alone or say is Say.OPENED
    event = EVENT_OF[about.rule.kind] if in_full else AlertEvent.INCIDENT_UPDATED
    if say is Say.RESOLVED:
        event, in_full = AlertEvent.INCIDENT_RESOLVED, False
    title = cut(_title(about, incident, say, matches, cases), TITLE_CHARS)
    return Content(
        alert_id=alert_id(about.incident_id, incident, say),
        event=event,
        severity=AlertSeverity.INFO if say is Say.RESOLVED else about.rule.severity,
        title=title,
        at=at,
        workspace=about.workspace,
        agent=about.agent,
        rule=RuleName(about.rule.id, about.rule.name, about.rule.kind),
        incident=_named(about.incident_id, incident),
        detail="" if in_full else title,
        case=cases[0] if in_full and cases else None,
        worst=() if alone or say is Say.RESOLVED else tuple(cases[:WORST_LISTED]),
        matches=matches,
        public_url=about.public_url,
    )


def _named(incident_id: uuid.UUID, incident: Incident) -> IncidentName:
    state = "open" if incident.resolved_at is None else "resolved"
    return IncidentName(incident_id, state, incident.opened_at, incident.match_count)


def _title(about: About, incident: Incident, say: Say, matches: int, cases: Sequence[Case]) -> str:
    who = (about.agent or about.workspace).name
    if say is Say.RESOLVED:
        return f"{who}: '{about.rule.name}' is over, {_counted(incident.match_count)} in all"
    if matches > 1:
        since = "" if say is Say.OPENED else "more "
        return f"{who}: {since}'{about.rule.name}', {_counted(matches)}"
    return f"{who}: {cases[0].detail}" if cases else f"{who}: {about.rule.name}"


def _counted(matches: int) -> str:
    return "1 match" if matches == 1 else f"{matches} matches"
