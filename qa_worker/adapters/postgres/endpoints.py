"""Receivers of alerts: where they are (sealed), how they fare."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Double, Row, bindparam, delete, func, or_, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.tables import endpoint_secrets, endpoints, workspaces
from qa_worker.adapters.postgres.work import seconds
from qa_worker.application.delivering import Address, Endpoint, EndpointRef, NewEndpoint
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.endpoint import EndpointKind, Health
from qa_worker.domain.errors import InvalidInput

_NOW = func.clock_timestamp()
_NOTED_EVERY_S = 60.0
_ACTIVE, _DISABLED = "active", "disabled"


class PostgresEndpoints:
    """Implements the port `Endpoints` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, endpoint: NewEndpoint) -> None:
        """See the port."""
        workspace = ensure_workspace(self._connection, endpoint.workspace_name)
        added = self._connection.execute(
            insert(endpoints)
            .values(
                id=endpoint.id,
                workspace_id=workspace,
                name=endpoint.name,
                kind=endpoint.kind.value,
                target_hint=endpoint.target_hint,
                target=endpoint.target,
            )
            .on_conflict_do_nothing()
            .returning(endpoints.c.id)
        )
        if added.one_or_none() is None:
            raise InvalidInput("name", f"there is an endpoint {endpoint.name!r} already", "Choose another name")
        if endpoint.secret is not None:
            self._add_secret(endpoint.id, endpoint.secret)

    def all(self, workspace_name: str | None = None) -> Sequence[Endpoint]:
        """See the port."""
        which = workspaces.c.name == workspace_name if workspace_name is not None else endpoints.c.id.is_not(None)
        rows = self._connection.execute(_ENDPOINT.where(which).order_by(workspaces.c.name, endpoints.c.name))
        return [_endpoint(row) for row in rows]

    def get(self, endpoint_id: uuid.UUID) -> Endpoint | None:
        """See the port."""
        return self._one(endpoints.c.id == endpoint_id)

    def named(self, workspace_name: str, name: str) -> Endpoint | None:
        """See the port."""
        return self._one((workspaces.c.name == workspace_name) & (endpoints.c.name == name))

    def _one(self, which: ColumnElement[bool]) -> Endpoint | None:
        row = self._connection.execute(_ENDPOINT.where(which)).one_or_none()
        return None if row is None else _endpoint(row)

    def address(self, endpoint_id: uuid.UUID) -> Address | None:
        """See the port."""
        return next(iter(self._addresses(endpoints.c.id == endpoint_id, SIGNS)), None)

    def sealed(self) -> Sequence[Address]:
        """See the port."""
        return self._addresses(endpoints.c.id.is_not(None), endpoint_secrets.c.id.is_not(None))

    def _addresses(self, which: ColumnElement[bool], secrets: ColumnElement[bool]) -> list[Address]:
        rows = self._connection.execute(_ENDPOINT.where(which)).all()
        found = self._connection.execute(
            select(endpoint_secrets)
            .where(endpoint_secrets.c.endpoint_id == func.any([row.id for row in rows]), secrets)
            .order_by(*NEWEST_FIRST)
        )
        by_endpoint: defaultdict[uuid.UUID, list[bytes]] = defaultdict(list)
        for secret in found:
            by_endpoint[secret.endpoint_id].append(bytes(secret.ciphertext))
        return [Address(ref_of(row), bytes(row.target), tuple(by_endpoint[row.id])) for row in rows]

    def rotate_secret(self, endpoint_id: uuid.UUID, sealed: bytes, *, overlap_s: float) -> None:
        """See the port."""
        # Two who rotate at once take turns, or each would miss the other's secret, and it would never expire.
        self.hold(endpoint_id)
        of_it = endpoint_secrets.c.endpoint_id == endpoint_id
        self._connection.execute(delete(endpoint_secrets).where(of_it, endpoint_secrets.c.expires_at <= _NOW))
        self._connection.execute(
            update(endpoint_secrets)
            .where(of_it, endpoint_secrets.c.expires_at.is_(None))
            .values(expires_at=_NOW + seconds(overlap_s))
        )
        self._add_secret(endpoint_id, sealed)

    def _add_secret(self, endpoint_id: uuid.UUID, sealed: bytes) -> None:
        values = {"id": uuid.uuid4(), "endpoint_id": endpoint_id, "ciphertext": sealed, "created_at": _NOW}
        self._connection.execute(plain_insert(endpoint_secrets).values(values))

    def switch(self, endpoint_id: uuid.UUID, *, on: bool, reason: str = "") -> None:
        """See the port."""
        fresh = _health_values(Health()) if on else {}
        values = {"state": _ACTIVE if on else _DISABLED, "disabled_reason": reason, **fresh}
        self._connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(values))

    def hold(self, endpoint_id: uuid.UUID) -> tuple[Health, datetime]:
        """See the port."""
        row = self._connection.execute(
            select(*_HEALTH, _NOW.label("now"))
            .where(endpoints.c.id == endpoint_id)
            # Not the key: deliveries to it can still be added meanwhile.
            .with_for_update(key_share=True)
        ).one()
        return health_of(row), row.now

    def save_health(self, endpoint_id: uuid.UUID, health: Health) -> None:
        """See the port."""
        self._connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(_health_values(health)))

    def took(self, endpoint_id: uuid.UUID, took_s: float, *, slow_s: float) -> None:
        """See the port."""
        self._connection.execute(_TOOK, {"endpoint": endpoint_id, "took": took_s, "slow": slow_s})

    def succeeded(self, endpoint_id: uuid.UUID, *, took_s: float, slow_s: float) -> None:
        """See the port."""
        self._connection.execute(_SUCCEEDED, {"endpoint": endpoint_id, "took": took_s, "slow": slow_s})

    def reseal(self, endpoint_id: uuid.UUID, target: bytes, secrets: Sequence[tuple[bytes, bytes]]) -> None:
        """See the port."""
        self._connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(target=target))
        for before, after in secrets:
            columns = endpoint_secrets.c
            self._connection.execute(
                update(endpoint_secrets)
                .where(columns.endpoint_id == endpoint_id, columns.ciphertext == before)
                .values(ciphertext=after)
            )


SIGNS = or_(endpoint_secrets.c.expires_at.is_(None), endpoint_secrets.c.expires_at > _NOW)
NEWEST_FIRST = (endpoint_secrets.c.expires_at.desc().nulls_first(), endpoint_secrets.c.created_at.desc())
_HEALTH = (
    endpoints.c.failing_since,
    endpoints.c.consecutive_failures,
    endpoints.c.paused_until,
    endpoints.c.took_s,
)
_ENDPOINT = select(endpoints, workspaces.c.name.label("workspace_name")).join(
    workspaces, workspaces.c.id == endpoints.c.workspace_id
)
# What is no news is not written: all deliveries to an endpoint share its row.
_JUST_TOOK, _SLOW = bindparam("took", type_=Double), bindparam("slow", type_=Double)
_PACE = func.coalesce((endpoints.c.took_s + _JUST_TOOK) / 2, _JUST_TOOK)
_PACE_IS_NEWS = endpoints.c.took_s.is_(None) | (func.greatest(endpoints.c.took_s, _JUST_TOOK) > _SLOW)
_TOOK = update(endpoints).where(endpoints.c.id == bindparam("endpoint"), _PACE_IS_NEWS).values(took_s=_PACE)
_NEWS = _PACE_IS_NEWS | (
    endpoints.c.failing_since.is_not(None)
    | (endpoints.c.consecutive_failures > 0)
    | endpoints.c.last_success_at.is_(None)
    | (endpoints.c.last_success_at < _NOW - seconds(_NOTED_EVERY_S))
)
_SUCCEEDED = (
    update(endpoints)
    .where(endpoints.c.id == bindparam("endpoint"), _NEWS)
    .values(last_success_at=_NOW, failing_since=None, consecutive_failures=0, took_s=_PACE)
)


def health_of(row: Any) -> Health:
    """The health in a row of `endpoints`."""
    return Health(row.failing_since, row.consecutive_failures, row.paused_until, row.took_s)


def _health_values(health: Health) -> dict[str, Any]:
    return {
        "failing_since": health.failing_since,
        "consecutive_failures": health.consecutive_failures,
        "paused_until": health.paused_until,
    }


def ref_of(row: Any) -> EndpointRef:
    return EndpointRef(row.id, WorkspaceId(row.workspace_id), row.workspace_name, row.name, EndpointKind(row.kind))


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        ref=ref_of(row),
        target_hint=row.target_hint,
        active=row.state == _ACTIVE,
        disabled_reason=row.disabled_reason,
        health=health_of(row),
        last_success_at=row.last_success_at,
        created_at=row.created_at,
    )
