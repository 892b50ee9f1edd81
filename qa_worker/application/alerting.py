"""What alerts need of the world: the rules, what matched them, the incidents they make, the alerts raised."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from qa_worker.application.alert_queries import LetterFigures
from qa_worker.domain.alert import AlertEvent, Case, Content, Named
from qa_worker.domain.alert_rule import AlertRule, AlertSeverity, Match
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.failure_rate import Tally
from qa_worker.domain.incident import Incident

Concern = tuple[uuid.UUID, uuid.UUID | None]
"""A rule's id and an agent's: what one incident is about. None is what concerns no agent."""


@dataclass(frozen=True, slots=True)
class KnownRule:
    """A rule with its workspace's name and its endpoints, those that are switched off among them."""

    rule: AlertRule
    workspace_name: str
    endpoints: tuple[uuid.UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose evaluation it is, and why it was given up on."""

    evaluation_id: uuid.UUID
    workspace: WorkspaceId
    agent_id: uuid.UUID
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HeldIncident:
    """An open incident whose row is ours until the transaction ends."""

    id: uuid.UUID
    incident: Incident


@dataclass(frozen=True, slots=True)
class NewAlert:
    """An alert about to be stored. `body` is what every endpoint is sent, byte for byte."""

    id: uuid.UUID
    workspace: WorkspaceId
    event: AlertEvent
    severity: AlertSeverity
    title: str
    body: bytes
    at: datetime
    rule_id: uuid.UUID | None = None
    incident_id: uuid.UUID | None = None
    agent_id: uuid.UUID | None = None
    evaluation_id: uuid.UUID | None = None
    call_id: uuid.UUID | None = None


def new_alert(content: Content, body: bytes) -> NewAlert:
    """The row of an alert that says this."""
    case = content.case
    return NewAlert(
        id=content.alert_id,
        workspace=WorkspaceId(content.workspace.id),
        event=content.event,
        severity=content.severity,
        title=content.title,
        body=body,
        at=content.at,
        rule_id=content.rule.id if content.rule else None,
        incident_id=content.incident.id if content.incident else None,
        agent_id=content.agent.id if content.agent else None,
        evaluation_id=case.evaluation_id if case else None,
        call_id=case.call.id if case and case.call else None,
    )


class AlertRules(Protocol):
    """The rules of workspaces."""

    def of_workspace(self, workspace: WorkspaceId) -> Sequence[AlertRule]:
        """The enabled rules that look at evaluations, runs and suites.

        Each process reads all workspaces' rules at once and keeps them for some seconds: a new rule holds that much later.
        """
        ...

    def get(self, rule_id: uuid.UUID) -> KnownRule | None:
        """One rule, as it is now."""
        ...

    def conditions(self) -> Sequence[KnownRule]:
        """The enabled rules of every workspace that look at what lasts."""
        ...

    def all_of(self, workspace: WorkspaceId) -> Sequence[KnownRule]:
        """Every rule of a workspace, by name."""
        ...

    def add(self, rule: AlertRule, endpoints: Sequence[uuid.UUID]) -> None:
        """Store a rule. Raises InvalidInput where its name is taken, or an endpoint or the agent isn't its workspace's."""
        ...

    def workspace(self, name: str) -> WorkspaceId:
        """The workspace of this name, made if there is none: rules may be there before the first call."""
        ...

    def agent(self, workspace: WorkspaceId, ref: str) -> uuid.UUID | None:
        """The agent that calls name so; None where none did yet."""
        ...

    def agent_refs(self, workspace: WorkspaceId) -> Mapping[uuid.UUID, str]:
        """How calls name the agents of a workspace."""
        ...

    def remove(self, workspace: WorkspaceId, name: str) -> bool:
        """Delete a rule with its incidents; the alerts that it raised stay. False where there is none of this name."""
        ...


class Alerts(Protocol):
    """Matches as they come in, and alerts with their deliveries as they go out."""

    def append(self, workspace: WorkspaceId, matches: Sequence[Match]) -> Sequence[Concern]:
        """Store matches that are not stored yet; what is worth a nudge now, for the rest the next sweep is early enough.

        Only inserts, so that recording evaluations never waits for anybody who raises alerts.
        """
        ...

    def owner(self, evaluation_id: uuid.UUID) -> Owner | None:
        """Whose evaluation this is."""
        ...

    def just_abandoned(self) -> Sequence[Owner]:
        """The evaluations that this very transaction has given up on because their workers died."""
        ...

    def raise_alert(self, alert: NewAlert, endpoints: Sequence[uuid.UUID], *, max_attempts: int) -> Sequence[uuid.UUID]:
        """Store an alert and a delivery for each of these endpoints of its workspace; the ids of those to be sent.

        They are pending and due now. The delivery to an endpoint that is switched off is dead at once, with a dead letter.
        An alert that is stored already (the same id) gets no second delivery.
        """
        ...

    def forget(self, before: datetime, *, batch: int) -> int:
        """Delete at most `batch` alerts older than that, with all that hangs on them, then incidents and settled letters.

        Never one with an unfinished delivery or an open dead letter. Returns how many rows of all kinds.
        """
        ...


class Incidents(Protocol):
    """Incidents, and the matches that they are made of."""

    def unfolded(self, *, older_than_s: float, limit: int) -> Sequence[Concern]:
        """What has matches that nobody has folded into an incident for that long."""
        ...

    def due(self, now: datetime, *, limit: int) -> Sequence[Concern]:
        """Open incidents whose digest is due, or that may be over."""
        ...

    def hold(self, rule: AlertRule, agent_id: uuid.UUID | None, now: datetime) -> HeldIncident | None:
        """The open incident, locked; begun if there is none and something waits for it; None where nothing does."""
        ...

    def take(self, held: HeldIncident, concern: Concern, *, limit: int) -> int:
        """Fold at most so many waiting matches into the incident, the oldest first; returns how many."""
        ...

    def untold(self, incident_id: uuid.UUID, *, at_most: int) -> Sequence[Match]:
        """The worst matches that no alert has told of yet: the lowest overall first."""
        ...

    def cases(self, matches: Sequence[Match], *, in_full: bool) -> Sequence[Case]:
        """What these matches are about, in their order; `in_full`: the first of them with its scores and findings."""
        ...

    def agent(self, agent_id: uuid.UUID) -> Named:
        """An agent's names."""
        ...

    def told(self, incident_id: uuid.UUID, alert_id: uuid.UUID) -> None:
        """Note that this alert tells of every match of the incident that no alert has told of."""
        ...

    def save(self, held: HeldIncident, incident: Incident) -> None:
        """Store what an incident has become."""
        ...

    def watch(self) -> bool:
        """True for one transaction at a time: whoever gets it looks at conditions."""
        ...

    def lasts(self, rule_id: uuid.UUID, agent_id: uuid.UUID | None, now: datetime) -> bool:
        """True where this condition has an open incident (which goes on by that), or a match that waits to become one."""
        ...


@dataclass(frozen=True, slots=True)
class SpentShare:
    """How much of a daily budget is used up (1 is all). `workspace` is empty for all workspaces together."""

    workspace: str
    share: float


class Vitals(Protocol):
    """What can be known of the system's health. Each raises StoreUnavailable where what it asks is away."""

    def tallies(self, workspace: WorkspaceId, *, since: datetime, until: datetime) -> Mapping[uuid.UUID, Tally]:
        """The current verdicts of evaluations of that time, by agent."""
        ...

    def new_letters(self, workspace: WorkspaceId, *, since: datetime) -> int:
        """Open dead letters of a workspace that died since then."""
        ...

    def letter_figures(self, workspace: WorkspaceId) -> LetterFigures:
        """Depth and age of a workspace's open dead letters."""
        ...

    def spend_limited(self, workspace: WorkspaceId) -> bool:
        """Whether calls of a workspace wait because the provider's own spend limit is reached."""
        ...

    def oldest_waiting_s(self, workspace: WorkspaceId) -> float | None:
        """For how long the oldest live call of a workspace has waited for its verdict; None where none waits."""
        ...
