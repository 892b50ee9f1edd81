"""The queries that every kind of work shares: queue, claim, extend, wait, rescue. See `qa_worker.domain.work`.

All leases are on the database's clock, so that workers with wrong clocks can't take each other's work.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from sqlalchemy import (
    ARRAY,
    Connection,
    Double,
    Row,
    Select,
    Table,
    Update,
    Uuid,
    bindparam,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.application.ports import AttemptRecord
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.work import WORKER_DIED, Lane, Lease, WorkState, WorkStatus

_NOW = func.clock_timestamp()
_SPREAD_S = 5.0


def seconds(value: float) -> ColumnElement[Any]:
    """An interval of so many seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value)


def is_sent(table: Table) -> ColumnElement[bool]:
    """Whether workers are sent this work one by one: what waits for a batch, or is held by one, keeps nobody busy."""
    return table.c.lane != Lane.BATCH.value


@cache
def claiming(table: Table, *also: ColumnElement[bool]) -> Update:
    """The statement that claims `ids` for `lease_s` seconds: built once, because building it costs more than running it.

    What another transaction is about to take is left to it: duplicates of a message never wait for each other.
    """
    columns = table.c
    due = (columns.state == WorkState.PENDING) & (columns.not_before <= _NOW)
    chosen = (
        select(columns.id)
        .where(
            columns.id == func.any(bindparam("ids", type_=ARRAY(Uuid))),
            (columns.state == WorkState.QUEUED) | due,
            *also,
        )
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    return (
        update(table)
        .where(columns.id.in_(select(chosen.c.id)))
        .values(
            state=WorkState.RUNNING.value,
            attempt=columns.attempt + 1,
            started_at=_NOW,
            lease_token=func.gen_random_uuid(),
            lease_until=_NOW + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("lease_s", type_=Double)),
            wait_reason="",
        )
        .returning(
            columns.id,
            columns.lease_token,
            columns.attempt,
            columns.max_attempts,
            columns.started_at,
            columns.park_count,
        )
    )


@cache
def _holding(table: Table) -> Select[uuid.UUID]:
    columns = table.c
    return (
        select(columns.lease_token)
        .where(
            columns.id == func.any(bindparam("ids", type_=ARRAY(Uuid))),
            columns.lease_token == func.any(bindparam("tokens", type_=ARRAY(Uuid))),
            columns.state == WorkState.RUNNING,
        )
        .order_by(columns.id)
        .with_for_update()
    )


class Ended(Protocol):
    """The record of an attempt, whatever the work is."""

    @property
    def failure(self) -> Failure | None: ...


class WorkRows:
    """The work of one table that has the work columns."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table

    def status(self, work_id: uuid.UUID) -> WorkStatus | None:
        """Where this piece of work stands."""
        row = self._connection.execute(select(self._table).where(self._table.c.id == work_id)).one_or_none()
        if row is None:
            return None
        return WorkStatus(
            state=WorkState(row.state),
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            not_before=row.not_before,
            wait_reason=row.wait_reason,
            error_kind=None if row.error_kind is None else FailureKind(row.error_kind),
            error_code=row.error_code,
            error_message=row.error_message,
        )

    def queue_new(self, work_ids: Sequence[uuid.UUID], *, in_flight_limit: int) -> set[uuid.UUID]:
        """Pending and due -> queued, as long as no more than `in_flight_limit` rows are queued or running."""
        room = self.room(in_flight_limit=in_flight_limit) if work_ids else 0
        if room <= 0:
            return set()
        columns = self._table.c
        # What another transaction is about to take is sent by that one.
        chosen = (
            select(columns.id)
            .where(
                columns.id == func.any(list(work_ids[:room])),
                columns.state == WorkState.PENDING,
                columns.not_before <= _NOW,
            )
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        queued = self._connection.execute(
            update(self._table)
            .where(columns.id.in_(select(chosen.c.id)))
            .values(state=WorkState.QUEUED.value, queued_at=_NOW)
            .returning(columns.id)
        )
        return set(queued.scalars())

    def claim(
        self, work_ids: Sequence[uuid.UUID], *, lease_s: float, only: Update | None = None, **parameters: object
    ) -> list[Lease]:
        """Queued, or pending and due -> running, each with a fresh token; the attempt is counted now.

        `only` is a statement of `claiming` with a further condition, and `parameters` are that condition's.
        """
        given = {"ids": list(work_ids), "lease_s": lease_s, **parameters}
        rows = self._connection.execute(claiming(self._table) if only is None else only, given)
        return [
            Lease(row.id, row.lease_token, row.attempt, row.max_attempts, row.started_at, row.park_count)
            for row in rows
        ]

    def hold(self, leases: Sequence[Lease]) -> set[uuid.UUID]:
        """Lock these rows for the rest of this transaction; returns the tokens that are still ours."""
        given = {"ids": [lease.work_id for lease in leases], "tokens": [lease.token for lease in leases]}
        return set(self._connection.execute(_holding(self._table), given).scalars())

    def release(self, lease: Lease, values: dict[str, Any]) -> None:
        """Write the end of an attempt and give the lease back. Raises LeaseLost where the token is no longer valid."""
        columns = self._table.c
        written = self._connection.execute(
            update(self._table)
            .where(
                columns.id == lease.work_id,
                columns.lease_token == lease.token,
                columns.state == WorkState.RUNNING,
            )
            .values(lease_token=None, lease_until=None, **values)
        )
        if written.rowcount != 1:
            raise LeaseLost(str(lease.work_id))

    def put_back(self, work_id: uuid.UUID, *, wait_s: float, reason: str) -> None:
        """Queued -> pending: there is no room for it after all. What is pending already stays as it is."""
        columns = self._table.c
        self._connection.execute(
            update(self._table)
            .where(columns.id == work_id, columns.state == WorkState.QUEUED)
            .values(state=WorkState.PENDING.value, not_before=_NOW + seconds(wait_s), wait_reason=reason)
        )

    def bury_waiting(self, which: ColumnElement[bool], values: dict[str, Any], *, limit: int) -> Sequence[Row[Any]]:
        """Pending or queued -> dead, with these values, for what can't succeed any more; the rows that were."""
        columns = self._table.c
        chosen = (
            select(columns.id)
            .where(columns.state.in_([WorkState.PENDING.value, WorkState.QUEUED.value]), which)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        return self._connection.execute(
            update(self._table)
            .where(columns.id.in_(select(chosen.c.id)))
            .values(state=WorkState.DEAD.value, **values)
            .returning(self._table)
        ).all()

    def waiting(self, *, wait_s: float, reason: str, counts: bool, record: Ended) -> dict[str, Any]:
        """The values of a row that goes back to pending."""
        columns = self._table.c
        return {
            "state": WorkState.PENDING.value,
            "not_before": _NOW + seconds(wait_s),
            "wait_reason": reason,
            "attempt": columns.attempt if counts else columns.attempt - 1,
            "park_count": columns.park_count + (0 if counts else 1),
            **failure_values(record),
        }

    def queue(self, work_ids: Sequence[uuid.UUID]) -> Sequence[Row[Any]]:
        """Pending -> queued; the rows that were."""
        columns = self._table.c
        return self._connection.execute(
            update(self._table)
            .where(columns.id == func.any(list(work_ids)), columns.state == WorkState.PENDING)
            .values(state=WorkState.QUEUED.value, queued_at=_NOW)
            .returning(self._table)
        ).all()

    def expired(self, *, limit: int, only: ColumnElement[bool] | None = None) -> Sequence[Row[Any]]:
        """Running rows whose lease ran out (`only` those that this is true of), locked for this transaction."""
        columns = self._table.c
        return self._connection.execute(
            select(self._table)
            .where(columns.state == WorkState.RUNNING, columns.lease_until < _NOW, true() if only is None else only)
            .order_by(columns.lease_until)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()

    def free(self, work_ids: Sequence[uuid.UUID]) -> None:
        """Running -> pending, due within seconds; the attempt stays counted.

        Not all at the same moment: one of them may be what killed the worker, and should not come back with the others.
        """
        self._connection.execute(
            update(self._table)
            .where(self._table.c.id.in_(work_ids))
            .values(
                state=WorkState.PENDING.value,
                not_before=_NOW + seconds(_SPREAD_S) * func.random() * (self._table.c.attempt - 1),
                wait_reason=WORKER_DIED,
                lease_token=None,
                lease_until=None,
            )
        )

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[Row[Any]]:
        """Rows queued that long ago and never claimed; their clock starts again, so that one sweep sends them once.

        As many of the queued rows as have messages `waiting` in the broker are left alone: the longest queued ones are
        the first to have lost theirs.
        """
        columns = self._table.c
        queued = select(func.count()).where(columns.state == WorkState.QUEUED).scalar_subquery()
        lost = func.greatest(0, func.least(limit, queued - waiting))
        chosen = (
            select(columns.id)
            .where(columns.state == WorkState.QUEUED, columns.queued_at < _NOW - seconds(older_than_s))
            .order_by(columns.queued_at)
            .limit(lost)
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        return self._connection.execute(
            update(self._table).where(columns.id.in_(select(chosen.c.id))).values(queued_at=_NOW).returning(self._table)
        ).all()

    def revive(
        self, which: ColumnElement[bool], unended: Mapping[str, Any], *, done: ColumnElement[bool] | None = None
    ) -> Sequence[Row[Any]]:
        """Dead, waiting for an installation to be mended, or `done` and this is true of it -> pending: see `begin_anew`."""
        columns = self._table.c
        blocked = columns.error_kind.in_([FailureKind.BLOCKED.value, FailureKind.SPEND_CAP.value])
        waits = (columns.state == WorkState.PENDING) & blocked
        mended = () if done is None else ((columns.state == WorkState.DONE) & done,)
        return self.begin_anew(or_(columns.state == WorkState.DEAD, waits, *mended) & which, unended)

    def begin_anew(self, which: ColumnElement[bool], unended: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """What nobody holds -> pending, due at once, with all attempts before it; the rows that were.

        `unended` are this table's columns that tell of an end, without one. What was written about the earlier attempts
        stays.
        """
        return self._connection.execute(
            update(self._table)
            .where(which)
            .values(
                state=WorkState.PENDING.value,
                attempt=0,
                park_count=0,
                not_before=_NOW,
                wait_reason="asked for again",
                error_kind=None,
                error_code="",
                error_message="",
                **unended,
            )
            .returning(self._table)
        ).all()

    def extend(self, tokens: Sequence[uuid.UUID], *, lease_s: float) -> int:
        """Extend the leases with these tokens; returns how many still were ours."""
        columns = self._table.c
        # A row that somebody holds is being ended this very moment: waiting for it could only end in a deadlock.
        chosen = (
            select(columns.id)
            .where(columns.state == WorkState.RUNNING, columns.lease_token.in_(tokens))
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        extended = self._connection.execute(
            update(self._table).where(columns.id.in_(select(chosen.c.id))).values(lease_until=_NOW + seconds(lease_s))
        )
        return extended.rowcount

    def room(self, *, in_flight_limit: int) -> int:
        """How many rows may be queued besides those that are queued or running; less than none where that is too many."""
        return in_flight_limit - int(self._connection.execute(select(self._in_flight(in_flight_limit))).scalar_one())

    def _in_flight(self, limit: int) -> ColumnElement[int]:
        """Rows queued or running, counted no further than `limit` in each state: a long queue costs no long count."""
        counted = [
            select(func.count())
            .select_from(
                select(self._table.c.id)
                .where(self._table.c.state == state.value, is_sent(self._table))
                .limit(limit)
                .subquery()
            )
            .scalar_subquery()
            for state in (WorkState.QUEUED, WorkState.RUNNING)
        ]
        return counted[0] + counted[1]


def failure_values(record: Ended) -> dict[str, Any]:
    """The error columns, emptied where there was no failure."""
    failure = record.failure
    return {
        "error_kind": None if failure is None else failure.kind.value,
        "error_code": "" if failure is None else failure.code,
        "error_message": "" if failure is None else failure.message,
    }


def usage_values(record: AttemptRecord) -> dict[str, Any]:
    """The usage columns of one attempt."""
    usage = record.usage
    return {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "cost_micro_usd": record.cost_micro_usd,
    }
