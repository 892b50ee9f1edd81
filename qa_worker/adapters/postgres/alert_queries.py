"""The read side of alerts and dead letters."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, case, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.letters import letter_figures, matching
from qa_worker.adapters.postgres.runs import RUN_STATE
from qa_worker.adapters.postgres.tables import (
    agents,
    alert_rules,
    alerts,
    attempts,
    dead_letters,
    deliveries,
    delivery_attempts,
    endpoints,
    evaluations,
    runs,
    workspaces,
)
from qa_worker.application.alert_queries import AlertView, DeliveryView, LetterFigures, LetterView, TryView
from qa_worker.domain.dead_letter import Choice, LetterKind
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.work import WorkState


class PostgresAlertQueries:
    """Implements the port `AlertQueries`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def alerts(self, workspace: str, *, before: uuid.UUID | None, limit: int) -> Sequence[AlertView]:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            query = _ALERTS.where(workspaces.c.name == workspace)
            if before is not None:
                at = _found(connection, select(alerts.c.created_at).where(alerts.c.id == before), "alert")
                query = query.where(
                    or_(alerts.c.created_at < at, and_(alerts.c.created_at == at, alerts.c.id < before))
                )
            newest = query.order_by(alerts.c.created_at.desc(), alerts.c.id.desc()).limit(limit)
            rows = connection.execute(newest).all()
            of_alerts = _deliveries(connection, [row.id for row in rows], with_tries=False)
        return [_alert(row, of_alerts[row.id]) for row in rows]

    def alert(self, alert_id: uuid.UUID) -> AlertView | None:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            query = _ALERTS.add_columns(alerts.c.body).where(alerts.c.id == alert_id)
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            return _alert(row, _deliveries(connection, [alert_id], with_tries=True)[alert_id])

    def letters(self, choice: Choice, *, before: uuid.UUID | None, limit: int) -> Sequence[LetterView]:
        """See the port."""
        columns = dead_letters.c
        with store_errors(), self._engine.connect() as connection:
            query = _LETTERS.where(matching(choice))
            if before is not None:
                at = _found(connection, select(columns.died_at).where(columns.id == before), "dead letter")
                query = query.where(or_(columns.died_at < at, and_(columns.died_at == at, columns.id > before)))
            rows = connection.execute(query.order_by(columns.died_at.desc(), columns.id).limit(limit)).all()
        return [_letter(row) for row in rows]

    def letter(self, letter_id: uuid.UUID) -> LetterView | None:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            row = connection.execute(_LETTERS.where(dead_letters.c.id == letter_id)).one_or_none()
            if row is None:
                return None
            return _letter(row, _tries_of_letter(connection, row))

    def letter_figures(self) -> LetterFigures:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            return letter_figures(connection)


_ALERTS: Select[Any] = (
    select(
        *(column for column in alerts.c if column.name != "body"),
        workspaces.c.name.label("workspace"),
        alert_rules.c.name.label("rule"),
        agents.c.ref.label("agent"),
    )
    .join(workspaces, workspaces.c.id == alerts.c.workspace_id)
    .outerjoin(alert_rules, alert_rules.c.id == alerts.c.rule_id)
    .outerjoin(agents, agents.c.id == alerts.c.agent_id)
)
_DELIVERIES = select(deliveries, endpoints.c.name.label("endpoint"), endpoints.c.kind.label("endpoint_kind")).join(
    endpoints, endpoints.c.id == deliveries.c.endpoint_id
)


def _of_kind(kind: LetterKind, replay: ColumnElement[Any]) -> ColumnElement[bool]:
    return (dead_letters.c.kind == kind.value) & (replay == dead_letters.c.replay_ref)


_LETTERS = (
    select(
        dead_letters,
        workspaces.c.name.label("workspace"),
        endpoints.c.name.label("endpoint"),
        deliveries.c.state.label("delivery_state"),
        evaluations.c.state.label("evaluation_state"),
        evaluations.c.verdict.label("verdict"),
        case((runs.c.id.is_not(None), RUN_STATE)).label("run_state"),
    )
    .outerjoin(workspaces, workspaces.c.id == dead_letters.c.workspace_id)
    .outerjoin(endpoints, endpoints.c.id == dead_letters.c.endpoint_id)
    .outerjoin(deliveries, _of_kind(LetterKind.ALERT, deliveries.c.id))
    .outerjoin(evaluations, _of_kind(LetterKind.EVALUATION, evaluations.c.id))
    .outerjoin(runs, _of_kind(LetterKind.RUN, runs.c.id))
)


def _found(connection: Connection, query: Select[Any], what: str) -> Any:
    """The place in a list from which a page goes on."""
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise InvalidInput("before", f"nobody knows a {what} of this id", "Give the id of the last one of a page")
    return found


def _deliveries(
    connection: Connection, alert_ids: Sequence[uuid.UUID], *, with_tries: bool
) -> defaultdict[uuid.UUID, list[DeliveryView]]:
    found: defaultdict[uuid.UUID, list[DeliveryView]] = defaultdict(list)
    query = _DELIVERIES.where(deliveries.c.alert_id == func.any(list(alert_ids))).order_by(deliveries.c.created_at)
    rows = connection.execute(query).all()
    tries = _tries(connection, [row.id for row in rows]) if with_tries else {}
    for row in rows:
        found[row.alert_id].append(_delivery(row, tuple(tries.get(row.id, ()))))
    return found


def _tries(connection: Connection, delivery_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[TryView]]:
    columns = delivery_attempts.c
    found: defaultdict[uuid.UUID, list[TryView]] = defaultdict(list)
    query = select(delivery_attempts).where(columns.delivery_id == func.any(list(delivery_ids)))
    for row in connection.execute(query.order_by(columns.started_at)):
        more = {name: getattr(row, name) for name in ("duration_ms", "status_code", "response_head")}
        found[row.delivery_id].append(TryView(**_tried(row), **more))
    return found


def _tries_of_letter(connection: Connection, row: Row[Any]) -> tuple[TryView, ...]:
    match row.kind:
        case LetterKind.ALERT.value:
            return tuple(_tries(connection, [row.ref_id]).get(row.ref_id, ()))
        case LetterKind.EVALUATION.value:
            return _tries_of_evaluation(connection, attempts.c.evaluation_id == row.ref_id)
        case LetterKind.RUN.value:
            graded = select(runs.c.evaluation_id).where(runs.c.id == row.ref_id).scalar_subquery()
            return _tries_of_evaluation(connection, attempts.c.evaluation_id == graded)
        case _:
            return ()


def _tries_of_evaluation(connection: Connection, which: ColumnElement[bool]) -> tuple[TryView, ...]:
    rows = connection.execute(select(attempts).where(which).order_by(attempts.c.started_at))
    return tuple(TryView(**_tried(one)) for one in rows)


def _tried(row: Row[Any]) -> dict[str, Any]:
    names = ("attempt", "result", "started_at", "ended_at", "error_kind", "error_code", "error_message")
    return {name: getattr(row, name) for name in names}


def _delivery(row: Row[Any], tries: tuple[TryView, ...]) -> DeliveryView:
    names = [name for name in DeliveryView.__slots__ if name != "tries"]
    return DeliveryView(**{name: getattr(row, name) for name in names}, tries=tries)


def _alert(row: Row[Any], sent: Sequence[DeliveryView]) -> AlertView:
    names = [name for name in AlertView.__slots__ if name not in ("deliveries", "body")]
    body = json.loads(bytes(row.body)) if "body" in row._fields else {}
    return AlertView(**{name: getattr(row, name) for name in names}, deliveries=tuple(sent), body=body)


def _letter(row: Row[Any], tries: tuple[TryView, ...] = ()) -> LetterView:
    names = [name for name in LetterView.__slots__ if name not in ("outcome", "tries")]
    return LetterView(**{name: getattr(row, name) for name in names}, outcome=_outcome(row), tries=tries)


def _outcome(row: Row[Any]) -> str:
    if row.replay_ref is None:
        return ""
    if row.kind == LetterKind.MESSAGE.value:
        return "sent"
    if row.delivery_state == WorkState.DONE.value:
        return "delivered"
    return row.verdict or row.delivery_state or row.evaluation_state or row.run_state or "gone"
