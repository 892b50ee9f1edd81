"""Deliveries of alerts: work like any other, with an endpoint that limits how much of it is under way."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import aggregate_order_by

from qa_worker.adapters.postgres.delivery_letters import (
    SWITCHED_OFF,
    bury_waiting,
    error_values,
    write_delivery_letters,
)
from qa_worker.adapters.postgres.delivery_turns import QUEUE_NEXT, QUEUEABLE, QUEUEABLE_OF, SLOW
from qa_worker.adapters.postgres.endpoints import NEWEST_FIRST, SIGNS, health_of, ref_of
from qa_worker.adapters.postgres.tables import (
    alerts,
    deliveries,
    delivery_attempts,
    endpoint_secrets,
    endpoints,
    workspaces,
)
from qa_worker.adapters.postgres.work import WorkRows, claiming, failure_values, seconds
from qa_worker.application.delivering import NO_END, Address, DeliveryRecord, Errand, Gate
from qa_worker.domain.endpoint import HealthRules, is_slow, room
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.work import Lease, WorkState, WorkStatus

_NOW = func.clock_timestamp()
_DIED = Failure(
    FailureKind.ABANDONED,
    FailureKind.ABANDONED.value,
    "The process that sent this alert died or lost the database for longer than its lease.",
)
_NO_END = Failure(
    FailureKind.TRANSIENT, NO_END, "The endpoint has been failing for as long as all tries of an alert would take."
)


class PostgresDeliveries:
    """Implements the port `Deliveries` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._work = WorkRows(connection, deliveries)

    def gate(self, delivery_id: uuid.UUID) -> Gate | None:
        """See the port."""
        row = self._connection.execute(_GATE, {"delivery": delivery_id}).one_or_none()
        if row is None:
            return None
        return Gate(row.id, row.state == "active", health_of(row), row.now)

    def status(self, delivery_id: uuid.UUID) -> WorkStatus | None:
        """See the port."""
        return self._work.status(delivery_id)

    def claim(self, delivery_id: uuid.UUID, gate: Gate, *, rules: HealthRules, lease_s: float) -> Errand | None:
        """See the port."""
        given = {**_rules(rules), "room": room(gate.health, rules), "endpoint": gate.endpoint_id}
        only = _CLAIM_OF_SLOW if is_slow(gate.health, rules) else _CLAIM
        leases = self._work.claim([delivery_id], lease_s=lease_s, only=only, **given)
        if not leases:
            return None
        row = self._connection.execute(_PARCEL, {"delivery": delivery_id}).one()
        secrets = tuple(bytes(secret) for secret in row.secrets or ())
        return Errand(
            leases[0], gate, Address(ref_of(row), bytes(row.target), secrets), row.message_id, bytes(row.body)
        )

    def put_back(self, delivery_id: uuid.UUID, *, wait_s: float, reason: str) -> None:
        """See the port."""
        self._work.put_back(delivery_id, wait_s=wait_s, reason=reason)

    def delivered(self, lease: Lease, record: DeliveryRecord) -> bool:
        """See the port."""
        values = {"state": WorkState.DONE.value, "delivered_at": _NOW, **failure_values(record)}
        return self._release(lease, values, record)

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, record: DeliveryRecord) -> bool:
        """See the port."""
        values = self._work.waiting(wait_s=wait_s, reason=reason, counts=counts, record=record)
        return self._release(lease, values, record)

    def bury(self, lease: Lease, record: DeliveryRecord) -> bool:
        """See the port."""
        now = self._release(lease, {"state": WorkState.DEAD.value, **failure_values(record)}, record)
        if now:
            write_delivery_letters(self._connection, [self._row(lease.work_id)])
        return now

    def bury_open(self, endpoint_id: uuid.UUID, failure: Failure) -> int:
        """See the port."""
        return bury_waiting(self._connection, deliveries.c.endpoint_id == endpoint_id, failure, limit=_AT_ONCE)

    def bury_hopeless(self, rules: HealthRules, *, patience_s: float, limit: int) -> int:
        """See the port."""
        off = select(endpoints.c.id).where(endpoints.c.state == "disabled")
        failing = select(endpoints.c.id).where(
            endpoints.c.state == "active", endpoints.c.consecutive_failures >= rules.threshold
        )
        # Only pending ones, which have an index; what is queued has a message, which ends it in the same way.
        pending = deliveries.c.state == WorkState.PENDING.value
        # An attempt that was undone was one, too: the receiver asked for time.
        tried = deliveries.c.attempt + deliveries.c.park_count > 0
        # Its next try was due, and no pause can have been the reason why it didn't come.
        overdue = deliveries.c.not_before < _NOW - seconds(rules.max_pause_s)
        waited = pending & tried & overdue & (deliveries.c.created_at < _NOW - seconds(patience_s))
        to_off, to_failing = deliveries.c.endpoint_id.in_(off), deliveries.c.endpoint_id.in_(failing)
        return sum(
            bury_waiting(self._connection, which, failure, limit=limit)
            for which, failure in ((pending & to_off, SWITCHED_OFF), (waited & to_failing, _NO_END))
        )

    def queue_new(self, delivery_ids: Sequence[uuid.UUID], rules: HealthRules, *, limit: int) -> Sequence[uuid.UUID]:
        """See the port."""
        if not delivery_ids:
            return []
        return self._queue(
            QUEUEABLE_OF, {**_rules(rules), "batch": len(delivery_ids), "only": list(delivery_ids)}, limit
        )

    def queue_due(self, rules: HealthRules, *, limit: int, batch: int) -> Sequence[uuid.UUID]:
        """See the port."""
        return self._queue(QUEUEABLE, {**_rules(rules), "batch": batch}, limit)

    def queue_next(self, endpoint_id: uuid.UUID, rules: HealthRules) -> uuid.UUID | None:
        """See the port."""
        given = {**_rules(rules), "endpoint": endpoint_id}
        queued: uuid.UUID | None = self._connection.execute(QUEUE_NEXT, given).scalar_one_or_none()
        return queued

    def _queue(self, which: Select[Any], given: dict[str, Any], limit: int) -> Sequence[uuid.UUID]:
        chosen = list(self._connection.execute(which, given).scalars())
        queued = self._work.queue_new(chosen, in_flight_limit=limit)
        return [one for one in chosen if one in queued]

    def free_expired(self, *, limit: int) -> tuple[int, int]:
        """See the port."""
        expired = self._work.expired(limit=limit)
        if not expired:
            return 0, 0
        self._connection.execute(_TRY, [_abandoned(row) for row in expired])
        freed = [row.id for row in expired if row.attempt < row.max_attempts]
        if freed:
            self._work.free(freed)
        buried = [row for row in expired if row.attempt >= row.max_attempts]
        for row in buried:
            lease = Lease(row.id, row.lease_token, row.attempt, row.max_attempts, row.started_at)
            self._work.release(lease, {"state": WorkState.DEAD.value, **error_values(_DIED)})
        write_delivery_letters(self._connection, [self._row(row.id) for row in buried])
        return len(freed), len(buried)

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[uuid.UUID]:
        """See the port."""
        rows = self._work.unsent(older_than_s=older_than_s, waiting=waiting, limit=limit)
        return [row.id for row in rows]

    def _release(self, lease: Lease, values: dict[str, Any], record: DeliveryRecord) -> bool:
        """Write the end of a try; False where this very end was written before, by a commit whose answer was lost."""
        try:
            self._work.release(lease, {**values, "response_status": record.answer.status})
        except LeaseLost:
            written = select(delivery_attempts.c.result).where(delivery_attempts.c.id == lease.token)
            if self._connection.execute(written).scalar_one_or_none() == record.result:
                return False
            raise
        answer = record.answer
        attempt = {
            "id": lease.token,
            "delivery_id": lease.work_id,
            "attempt": lease.attempt,
            "result": record.result,
            "started_at": lease.started_at,
            "ended_at": record.ended_at,
            "status_code": answer.status,
            "duration_ms": answer.duration_ms,
            "response_head": answer.head,
            **failure_values(record),
        }
        self._connection.execute(_TRY, attempt)
        return True

    def _row(self, delivery_id: uuid.UUID) -> Row[Any]:
        return self._connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).one()


# The sweep takes the rest.
_AT_ONCE = 1000
# Built once: building a statement costs more than running it.
_TRY = plain_insert(delivery_attempts)
_OTHER = deliveries.alias("other")
# Counted by the claim itself, while the gate is locked, so that no two claims count the same room.
_RUNNING = select(func.count()).where(
    _OTHER.c.state == WorkState.RUNNING.value, _OTHER.c.endpoint_id == bindparam("endpoint")
)
_HAS_ROOM = _RUNNING.scalar_subquery() < bindparam("room")
_RUNNING_TO_SLOW = (
    select(func.count())
    .join(endpoints, endpoints.c.id == _OTHER.c.endpoint_id)
    .where(_OTHER.c.state == WorkState.RUNNING.value, SLOW)
)
_CLAIM = claiming(deliveries, _HAS_ROOM)
_CLAIM_OF_SLOW = claiming(deliveries, _HAS_ROOM, _RUNNING_TO_SLOW.scalar_subquery() < bindparam("slow_room"))
_GATE = (
    select(
        endpoints.c.id,
        endpoints.c.state,
        endpoints.c.failing_since,
        endpoints.c.consecutive_failures,
        endpoints.c.paused_until,
        endpoints.c.took_s,
        _NOW.label("now"),
    )
    .join(deliveries, deliveries.c.endpoint_id == endpoints.c.id)
    .where(deliveries.c.id == bindparam("delivery"))
    # Not the key: deliveries to it can still be added meanwhile.
    .with_for_update(of=endpoints, key_share=True)
)
_PARCEL = (
    select(
        deliveries.c.message_id,
        alerts.c.body,
        endpoints.c.id,
        endpoints.c.workspace_id,
        workspaces.c.name.label("workspace_name"),
        endpoints.c.name,
        endpoints.c.kind,
        endpoints.c.target,
        select(func.array_agg(aggregate_order_by(endpoint_secrets.c.ciphertext, *NEWEST_FIRST)))
        .where(endpoint_secrets.c.endpoint_id == endpoints.c.id, SIGNS)
        .scalar_subquery()
        .label("secrets"),
    )
    .join(alerts, alerts.c.id == deliveries.c.alert_id)
    .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
    .join(workspaces, workspaces.c.id == endpoints.c.workspace_id)
    .where(deliveries.c.id == bindparam("delivery"))
)


def _rules(rules: HealthRules) -> dict[str, float]:
    return {
        "room": rules.in_flight,
        "threshold": rules.threshold,
        "slow": rules.slow_s,
        "slow_room": rules.slow_in_flight,
    }


def _abandoned(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.lease_token,
        "delivery_id": row.id,
        "attempt": row.attempt,
        "result": "abandoned",
        "started_at": row.started_at,
        "ended_at": row.lease_until,
        **error_values(_DIED),
    }
