"""Matches as they come in, alerts and their deliveries as they go out, and what is forgotten after a while."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Row, bindparam, column, delete, exists, func, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import JSONB, insert

from qa_worker.adapters.postgres.alert_rules import RuleBook
from qa_worker.adapters.postgres.delivery_letters import SWITCHED_OFF, bury_waiting
from qa_worker.adapters.postgres.tables import (
    alert_matches,
    alert_rules,
    alerts,
    dead_letters,
    deliveries,
    endpoints,
    evaluations,
    incidents,
)
from qa_worker.application.alerting import Concern, NewAlert, Owner
from qa_worker.domain.alert_rule import Match
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.failure import FailureKind
from qa_worker.domain.work import FINAL, Lane, WorkState


class PostgresAlerts:
    """Implements the port `Alerts` on one connection."""

    def __init__(self, connection: Connection, *, book: RuleBook) -> None:
        self._connection = connection
        self._book = book
        self._matched: list[dict[str, Any]] = []

    def append(self, workspace: WorkspaceId, matches: Sequence[Match]) -> Sequence[Concern]:
        """See the port."""
        if not matches:
            return []
        cooldowns = {rule.id: rule.cooldown_s for rule in self._book.of(self._connection, workspace)}
        self._matched += [_match_row(workspace, match) for match in matches]
        concerns = dict.fromkeys((match.rule_id, match.agent_id) for match in matches)
        return [one for one in concerns if self._book.worth_a_nudge(one, cooldown_s=cooldowns.get(one[0], 0))]

    def flush(self) -> None:
        """Write the matches that this transaction was given, with one statement for all of them."""
        matched, self._matched = self._matched, []
        if matched:
            self._connection.execute(_APPEND, {"rows": matched})

    def owner(self, evaluation_id: uuid.UUID) -> Owner | None:
        """See the port."""
        row = self._connection.execute(select(evaluations).where(evaluations.c.id == evaluation_id)).one_or_none()
        return None if row is None else _owner(row)

    def just_abandoned(self) -> Sequence[Owner]:
        """See the port."""
        columns = evaluations.c
        rows = self._connection.execute(
            select(evaluations).where(
                columns.state == WorkState.DEAD.value,
                columns.error_kind == FailureKind.ABANDONED.value,
                columns.lane != Lane.RUN.value,
                # The transaction's own beginning. Bounded by age for the index: nothing is tried for a month.
                columns.evaluated_at >= func.now(),
                columns.created_at >= func.now() - func.make_interval(0, 0, 0, 31),
                columns.workspace_id.in_(select(alert_rules.c.workspace_id).where(alert_rules.c.enabled)),
            )
        )
        return [_owner(row) for row in rows]

    def raise_alert(
        self, alert: NewAlert, endpoint_ids: Sequence[uuid.UUID], *, max_attempts: int
    ) -> Sequence[uuid.UUID]:
        """See the port."""
        added = self._connection.execute(
            insert(alerts).values(_alert_values(alert)).on_conflict_do_nothing().returning(alerts.c.id)
        )
        if added.one_or_none() is None:
            return []
        chosen = select(endpoints.c.id, endpoints.c.state).where(
            endpoints.c.id == func.any(list(endpoint_ids)), endpoints.c.workspace_id == alert.workspace
        )
        states = {row.id: row.state for row in self._connection.execute(chosen)}
        rows = [_delivery_values(alert, endpoint_id, max_attempts) for endpoint_id in states]
        if rows:
            self._connection.execute(plain_insert(deliveries), rows)
        sent = [row["id"] for row in rows if states[row["endpoint_id"]] == "active"]
        if len(sent) < len(rows):
            # Whoever switches the endpoint on again can replay them.
            never_sent = (deliveries.c.alert_id == alert.id) & deliveries.c.id.not_in(sent)
            bury_waiting(self._connection, never_sent, SWITCHED_OFF, limit=len(rows))
        return sent

    def forget(self, before: datetime, *, batch: int) -> int:
        """See the port."""
        return sum(self._connection.execute(one).rowcount for one in _forgetting(before, batch))


_GIVEN = [
    alert_matches.c[name]
    for name in (
        "id",
        "rule_id",
        "agent_id",
        "workspace_id",
        "cause",
        "evaluation_id",
        "overall",
        "detail",
        "matched_at",
    )
]
_ROWS = (
    func.jsonb_to_recordset(bindparam("rows", type_=JSONB))
    .table_valued(*(column(one.name, one.type) for one in _GIVEN))
    .render_derived(with_types=True)
)
# A rule that was removed while this process still knew it matches nothing more, and breaks no result.
_OF_KNOWN_RULES = select(*_ROWS.c).where(exists().where(alert_rules.c.id == _ROWS.c.rule_id))
_APPEND = insert(alert_matches).from_select(_GIVEN, _OF_KNOWN_RULES).on_conflict_do_nothing()


def _match_row(workspace: WorkspaceId, match: Match) -> dict[str, Any]:
    return {
        "id": str(match.id),
        "rule_id": str(match.rule_id),
        "agent_id": None if match.agent_id is None else str(match.agent_id),
        "workspace_id": str(workspace),
        "cause": match.cause,
        "evaluation_id": None if match.evaluation_id is None else str(match.evaluation_id),
        "overall": match.overall,
        "detail": match.detail,
        "matched_at": match.matched_at.isoformat(),
    }


def _owner(row: Row[Any]) -> Owner:
    reason = ", ".join(row.reasons)
    return Owner(row.id, WorkspaceId(row.workspace_id), row.agent_id, reason, row.evaluated_at or row.created_at)


def _alert_values(alert: NewAlert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "workspace_id": alert.workspace,
        "rule_id": alert.rule_id,
        "incident_id": alert.incident_id,
        "agent_id": alert.agent_id,
        "event": alert.event.value,
        "severity": alert.severity.value,
        "title": alert.title,
        "body": alert.body,
        "evaluation_id": alert.evaluation_id,
        "call_id": alert.call_id,
        "created_at": alert.at,
    }


def _delivery_values(alert: NewAlert, endpoint_id: uuid.UUID, max_attempts: int) -> dict[str, Any]:
    delivery_id = uuid.uuid5(alert.id, str(endpoint_id))
    return {
        "id": delivery_id,
        "alert_id": alert.id,
        "endpoint_id": endpoint_id,
        "workspace_id": alert.workspace,
        "max_attempts": max_attempts,
        "message_id": f"msg_{delivery_id.hex}",
    }


def _forgetting(before: datetime, batch: int) -> tuple[Delete, ...]:
    """Alerts take their deliveries, attempts and matches along; an incident goes when nothing tells of it any more."""
    open_letter = exists().where(
        dead_letters.c.kind == "alert", dead_letters.c.ref_id == deliveries.c.id, dead_letters.c.state == "open"
    )
    unfinished = deliveries.c.state.not_in([state.value for state in FINAL])
    needed = exists().where(deliveries.c.alert_id == alerts.c.id, unfinished | open_letter)
    old_alerts = (
        select(alerts.c.id).where(alerts.c.created_at < before, ~needed).order_by(alerts.c.created_at).limit(batch)
    )
    old_incidents = (
        select(incidents.c.id)
        .where(
            incidents.c.state == "resolved",
            incidents.c.resolved_at < before,
            ~exists().where(alerts.c.incident_id == incidents.c.id),
            ~exists().where(alert_matches.c.incident_id == incidents.c.id),
        )
        .order_by(incidents.c.resolved_at)
        .limit(batch)
    )
    old_letters = (
        select(dead_letters.c.id)
        .where(dead_letters.c.state != "open", dead_letters.c.settled_at < before)
        .order_by(dead_letters.c.died_at)
        .limit(batch)
    )
    return (
        delete(alerts).where(alerts.c.id.in_(old_alerts)),
        delete(incidents).where(incidents.c.id.in_(old_incidents)),
        delete(dead_letters).where(dead_letters.c.id.in_(old_letters)),
    )
