"""Incidents, and the matches that they are made of. Whoever changes one holds its row."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.tables import (
    agents,
    alert_matches,
    alert_rules,
    calls,
    evaluation_scores,
    evaluations,
    findings,
    incidents,
)
from qa_worker.adapters.postgres.work import seconds
from qa_worker.application.alerting import Concern, HeldIncident
from qa_worker.domain.alert import CalledBy, Case, Named
from qa_worker.domain.alert_rule import AlertRule, Match
from qa_worker.domain.evaluation import CriterionScore, Finding, Source
from qa_worker.domain.incident import CALM_S, Incident, begin
from qa_worker.domain.rubric import Severity

# Any fixed number: it only has to be the same for all who watch.
_WATCHING = 7_164_215


class PostgresIncidents:
    """Implements the port `Incidents` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def unfolded(self, *, older_than_s: float, limit: int) -> Sequence[Concern]:
        """See the port."""
        columns = alert_matches.c
        waiting = columns.incident_id.is_(None) & (columns.matched_at < func.clock_timestamp() - seconds(older_than_s))
        query = select(columns.rule_id, columns.agent_id).where(waiting).distinct().limit(limit)
        return [(row.rule_id, row.agent_id) for row in self._connection.execute(query)]

    def due(self, now: datetime, *, limit: int) -> Sequence[Concern]:
        """See the port."""
        columns = incidents.c
        calm_since = now - seconds(1) * func.greatest(alert_rules.c.cooldown_s, CALM_S)
        query = (
            select(columns.rule_id, columns.agent_id)
            .join(alert_rules, alert_rules.c.id == columns.rule_id)
            .where(
                columns.state == "open",
                columns.quiet_until <= now,
                (columns.gathered > 0) | (columns.last_match_at <= calm_since),
            )
            .order_by(columns.quiet_until)
            .limit(limit)
        )
        return [(row.rule_id, row.agent_id) for row in self._connection.execute(query)]

    def hold(self, rule: AlertRule, agent_id: uuid.UUID | None, now: datetime) -> HeldIncident | None:
        """See the port."""
        concern = (rule.id, agent_id)
        held = self._lock(concern)
        if held is None and self._waits(concern):
            first = begin(now)
            # Another one that begins the same incident now is waited for here, and then its row is ours to lock.
            self._connection.execute(
                insert(incidents)
                .values(
                    id=uuid.uuid4(),
                    rule_id=rule.id,
                    agent_id=agent_id,
                    workspace_id=rule.workspace,
                    **_values(first),
                )
                .on_conflict_do_nothing()
            )
            held = self._lock(concern)
        return held

    def take(self, held: HeldIncident, concern: Concern, *, limit: int) -> int:
        """See the port."""
        columns = alert_matches.c
        oldest = select(columns.id).where(_unfolded(concern)).order_by(columns.matched_at).limit(limit)
        taken = self._connection.execute(
            update(alert_matches).where(columns.id.in_(oldest)).values(incident_id=held.id)
        )
        return taken.rowcount

    def untold(self, incident_id: uuid.UUID, *, at_most: int) -> Sequence[Match]:
        """See the port."""
        columns = alert_matches.c
        query = (
            select(alert_matches)
            .where(columns.incident_id == incident_id, columns.alert_id.is_(None))
            .order_by(columns.overall.asc().nulls_last(), columns.matched_at, columns.id)
            .limit(at_most)
        )
        return [_to_match(row) for row in self._connection.execute(query)]

    def cases(self, matches: Sequence[Match], *, in_full: bool) -> Sequence[Case]:
        """See the port."""
        ids = [match.evaluation_id for match in matches if match.evaluation_id is not None]
        query = (
            select(
                evaluations.c.id,
                evaluations.c.verdict,
                evaluations.c.overall,
                evaluations.c.reasons,
                evaluations.c.summary,
                evaluations.c.call_id,
                calls.c.ref,
                calls.c.external_id,
            )
            .join(calls, calls.c.id == evaluations.c.call_id)
            .where(evaluations.c.id == func.any(ids))
        )
        rows = {row.id: row for row in self._connection.execute(query)} if ids else {}
        return [
            self._case(match, rows.get(match.evaluation_id), in_full=in_full and match is matches[0])
            for match in matches
        ]

    def agent(self, agent_id: uuid.UUID) -> Named:
        """See the port."""
        row = self._connection.execute(select(agents).where(agents.c.id == agent_id)).one()
        return Named(row.id, row.name or row.ref, row.ref)

    def told(self, incident_id: uuid.UUID, alert_id: uuid.UUID) -> None:
        """See the port."""
        columns = alert_matches.c
        untold = (columns.incident_id == incident_id) & columns.alert_id.is_(None)
        self._connection.execute(update(alert_matches).where(untold).values(alert_id=alert_id))

    def save(self, held: HeldIncident, incident: Incident) -> None:
        """See the port."""
        self._connection.execute(update(incidents).where(incidents.c.id == held.id).values(_values(incident)))

    def watch(self) -> bool:
        """See the port."""
        return bool(self._connection.execute(select(func.pg_try_advisory_xact_lock(_WATCHING))).scalar_one())

    def lasts(self, rule_id: uuid.UUID, agent_id: uuid.UUID | None, now: datetime) -> bool:
        """See the port."""
        concern = (rule_id, agent_id)
        goes_on = self._connection.execute(
            update(incidents).where(_open(concern)).values(last_match_at=func.greatest(incidents.c.last_match_at, now))
        )
        return bool(goes_on.rowcount) or self._waits(concern)

    def _lock(self, concern: Concern) -> HeldIncident | None:
        row = self._connection.execute(select(incidents).where(_open(concern)).with_for_update()).one_or_none()
        return None if row is None else HeldIncident(row.id, _to_incident(row))

    def _waits(self, concern: Concern) -> bool:
        return bool(self._connection.execute(select(exists().where(_unfolded(concern)))).scalar_one())

    def _case(self, match: Match, row: Any, *, in_full: bool) -> Case:
        if row is None:
            return Case(match.detail, match.matched_at, evaluation_id=match.evaluation_id, overall=match.overall)
        scores: tuple[CriterionScore, ...] = ()
        found: tuple[Finding, ...] = ()
        if in_full:
            scores = tuple(_to_score(one) for one in self._parts(evaluation_scores, row.id))
            found = tuple(_to_finding(one) for one in self._parts(findings, row.id))
        return Case(
            detail=match.detail,
            at=match.matched_at,
            call=CalledBy(row.call_id, row.ref, row.external_id),
            evaluation_id=row.id,
            verdict=row.verdict,
            overall=row.overall,
            reasons=tuple(row.reasons),
            summary=row.summary,
            scores=scores,
            findings=found,
        )

    def _parts(self, table: Any, evaluation_id: uuid.UUID) -> Sequence[Row[Any]]:
        of_it = select(table).where(table.c.evaluation_id == evaluation_id).order_by(table.c.position)
        return self._connection.execute(of_it).all()


def _open(concern: Concern) -> ColumnElement[bool]:
    return and_(incidents.c.state == "open", _about(incidents.c, concern))


def _unfolded(concern: Concern) -> ColumnElement[bool]:
    return and_(alert_matches.c.incident_id.is_(None), _about(alert_matches.c, concern))


def _about(columns: Any, concern: Concern) -> ColumnElement[bool]:
    rule_id, agent_id = concern
    # Not IS NOT DISTINCT FROM: PostgreSQL uses no index for it.
    agent = columns.agent_id.is_(None) if agent_id is None else columns.agent_id == agent_id
    return and_(columns.rule_id == rule_id, agent)


def _values(incident: Incident) -> dict[str, Any]:
    return {
        "state": "open" if incident.resolved_at is None else "resolved",
        "opened_at": incident.opened_at,
        "last_match_at": incident.last_match_at,
        "resolved_at": incident.resolved_at,
        "match_count": incident.match_count,
        "quiet_until": incident.quiet_until,
        "gathered": incident.gathered,
    }


def _to_incident(row: Row[Any]) -> Incident:
    return Incident(
        opened_at=row.opened_at,
        last_match_at=row.last_match_at,
        quiet_until=row.quiet_until,
        match_count=row.match_count,
        gathered=row.gathered,
        resolved_at=row.resolved_at,
    )


def _to_match(row: Row[Any]) -> Match:
    return Match(
        id=row.id,
        rule_id=row.rule_id,
        agent_id=row.agent_id,
        cause=row.cause,
        detail=row.detail,
        matched_at=row.matched_at,
        evaluation_id=row.evaluation_id,
        overall=row.overall,
    )


def _to_score(row: Row[Any]) -> CriterionScore:
    return CriterionScore(row.criterion, row.score, row.level, row.applicable, row.weight, row.explanation)


def _to_finding(row: Row[Any]) -> Finding:
    severity, source = Severity(row.severity), Source(row.source)
    return Finding(row.criterion, severity, row.explanation, row.turn, row.quote, source, row.check)
