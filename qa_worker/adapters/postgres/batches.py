"""Batches and their items."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    Uuid,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from qa_worker.adapters.postgres.backlog import SIZE_COLUMNS, to_size
from qa_worker.adapters.postgres.evaluations import PostgresEvaluations
from qa_worker.adapters.postgres.rubrics import rubric_from_json
from qa_worker.adapters.postgres.tables import (
    agent_versions,
    attempts,
    batch_items,
    batch_promises,
    batches,
    calls,
    evaluations,
    rubric_versions,
    rubrics,
)
from qa_worker.adapters.postgres.work import seconds
from qa_worker.application.batching import Item, NewItem, Waiting
from qa_worker.application.ports import RubricVersion
from qa_worker.domain.batch import BEING_MADE, OPEN, Batch, BatchState, Counts, ResultKind
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from qa_worker.domain.work import Lane, Lease, WorkState

# Any fixed number: it only has to be the same for all who are at batches.
_BATCHING = 7_164_215
_NOW = func.clock_timestamp()
_WAITING = (
    (evaluations.c.state == WorkState.PENDING.value)
    & (evaluations.c.lane == Lane.BATCH.value)
    & (evaluations.c.not_before <= _NOW)
)
_AT_MOST = 100_000


class PostgresBatches:
    """Implements the port `BatchRows` on one connection."""

    def __init__(self, connection: Connection, evaluations_: PostgresEvaluations) -> None:
        self._connection = connection
        self._evaluations = evaluations_

    def take(self, *, lease_s: float) -> Batch | None:
        """See the port."""
        if not self._is_our_turn():
            return None
        due = (
            select(batches.c.id)
            .where(batches.c.state.in_([state.value for state in OPEN]), batches.c.next_look_at <= _NOW)
            .order_by(batches.c.next_look_at)
            .limit(1)
            .scalar_subquery()
        )
        taken = update(batches).where(batches.c.id == due).values(deaths=batches.c.deaths + 1, **_leased(lease_s))
        return self._taken(taken.returning(*_COLUMNS))

    def begin(self, *, but_not: Collection[WorkspaceId], lease_s: float) -> Batch | None:
        """See the port."""
        if not self._is_our_turn() or self.is_one_being_made():
            return None
        waits = select(evaluations.c.id).where(_WAITING, evaluations.c.rubric_version_id == rubric_versions.c.id)
        model = self._connection.execute(
            select(rubric_versions.c.model).where(*_by_claude(but_not), waits.exists()).limit(1)
        ).scalar_one_or_none()
        if model is None:
            return None
        made = insert(batches).values(id=func.gen_random_uuid(), model=model, deaths=1, **_leased(lease_s))
        return self._taken(made.returning(*_COLUMNS))

    def keep(self, batch: Batch, *, lease_s: float, progress: bool) -> None:
        """See the port."""
        self._write(batch, {"lease_until": _NOW + seconds(lease_s), **({"deaths": 0} if progress else {})})

    def save(self, batch: Batch, *, lease_s: float) -> None:
        """See the port."""
        self._write(batch, {**_values(batch), "lease_until": _NOW + seconds(lease_s)})
        if batch.state is BatchState.CREATING:
            # From now on nobody can take back what it will cost.
            self._connection.execute(delete(batch_promises).where(batch_promises.c.batch_id == batch.id))
            self._connection.execute(_PROMISE, {"batch": batch.id})

    def leave(self, batch: Batch, *, wait_s: float) -> None:
        """See the port."""
        left = {"lease_until": None, "lease_token": None, "deaths": 0, "next_look_at": _NOW + seconds(wait_s)}
        self._write(batch, {**_values(batch), **left})

    def drop(self, batch: Batch) -> None:
        """See the port."""
        if self._connection.execute(delete(batches).where(_held(batch))).rowcount != 1:
            raise LeaseLost(str(batch.id))

    def waiting(self, batch: Batch, *, but_not: Collection[WorkspaceId], limit: int) -> Sequence[Waiting]:
        """See the port."""
        found = (
            select(evaluations.c.id, evaluations.c.workspace_id, evaluations.c.rubric_version_id, *SIZE_COLUMNS)
            .join(rubric_versions, rubric_versions.c.id == evaluations.c.rubric_version_id)
            .join(calls, calls.c.id == evaluations.c.call_id)
            .join(agent_versions, agent_versions.c.id == calls.c.agent_version_id)
            .where(_WAITING, rubric_versions.c.model == batch.model, *_by_claude(but_not))
            # Of one version after the other, as the index has them: what shares a cached prefix stands together.
            .order_by(evaluations.c.rubric_version_id, evaluations.c.not_before)
            .limit(limit)
        )
        return [
            Waiting(row.id, WorkspaceId(row.workspace_id), row.rubric_version_id, to_size(row))
            for row in self._connection.execute(found)
        ]

    def versions(self, version_ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, RubricVersion]:
        """See the port."""
        rows = self._connection.execute(_VERSIONS.where(rubric_versions.c.id == func.any(list(version_ids))))
        return {row.id: _to_version(row) for row in rows}

    def add(self, batch: Batch, items: Sequence[NewItem]) -> None:
        """See the port."""
        rows = [
            {
                "batch_id": batch.id,
                "token": item.token,
                "evaluation_id": item.evaluation_id,
                "workspace_id": item.workspace,
                "estimate_micro_usd": item.estimate_micro_usd,
            }
            for item in items
        ]
        if rows:
            self._connection.execute(insert(batch_items), rows)

    def remove(self, batch: Batch, tokens: Collection[uuid.UUID]) -> None:
        """See the port."""
        self._connection.execute(delete(batch_items).where(_of(batch, tokens)))

    def extend_items(self, batch: Batch, *, lease_s: float) -> Batch:
        """See the port."""
        until = _NOW + seconds(lease_s)
        mine = (evaluations.c.id == batch_items.c.evaluation_id) & (evaluations.c.lease_token == batch_items.c.token)
        open_ = (batch_items.c.batch_id == batch.id) & batch_items.c.result.is_(None)
        self._connection.execute(update(evaluations).where(open_, mine).values(lease_until=until))
        self._write(batch, {"items_leased_until": until})
        return batch

    def items(self, batch: Batch, *, after: uuid.UUID | None, limit: int) -> Sequence[Item]:
        """See the port."""
        open_ = _ITEMS.where(batch_items.c.batch_id == batch.id, batch_items.c.result.is_(None))
        page = open_ if after is None else open_.where(batch_items.c.token > after)
        return self._items(page.order_by(batch_items.c.token).limit(limit))

    def of_tokens(self, batch: Batch, tokens: Collection[uuid.UUID]) -> tuple[int, Sequence[Item]]:
        """See the port."""
        ours = int(self._connection.execute(select(func.count()).where(_of(batch, tokens))).scalar_one())
        return ours, self._items(_ITEMS.where(_of(batch, tokens), batch_items.c.result.is_(None))) if ours else []

    def settle(
        self, batch: Batch, results: Mapping[uuid.UUID, ResultKind], *, to_queue: Collection[uuid.UUID] = ()
    ) -> None:
        """See the port."""
        for kind in ResultKind:
            tokens = [token for token, result in results.items() if result is kind]
            if tokens:
                open_ = _of(batch, tokens) & batch_items.c.result.is_(None)
                settled = update(batch_items).where(open_).values(result=kind.value)
                rows = self._connection.execute(settled.returning(*_ESTIMATE)).all()
                self._keep_promise(batch, rows)
        if to_queue:
            waits = (evaluations.c.state == WorkState.PENDING.value) & (evaluations.c.lane == Lane.BATCH.value)
            left = update(evaluations).where(evaluations.c.id == func.any(list(to_queue)), waits)
            self._connection.execute(left.values(lane=Lane.BACKLOG.value))

    def _keep_promise(self, batch: Batch, settled: Sequence[Row[Any]]) -> None:
        """Whatever these items have cost is spent by now, and no longer promised."""
        promised: Counter[uuid.UUID] = Counter()
        for row in settled:
            promised[row.workspace_id] += row.estimate_micro_usd or 0
        for workspace, micro_usd in promised.items():
            whose = (batch_promises.c.batch_id == batch.id) & (batch_promises.c.workspace_id == workspace)
            less = {"micro_usd": batch_promises.c.micro_usd - micro_usd}
            self._connection.execute(update(batch_promises).where(whose).values(less))

    def cost(self, batch: Batch) -> int | None:
        """See the port."""
        of_batch = select(func.sum(attempts.c.cost_micro_usd)).join(batch_items, batch_items.c.token == attempts.c.id)
        spent = self._connection.execute(of_batch.where(batch_items.c.batch_id == batch.id)).scalar_one_or_none()
        return None if spent is None else int(spent)

    def known(self, provider_ids: Collection[str]) -> set[str]:
        """See the port."""
        ours = select(batches.c.provider_id).where(batches.c.provider_id == func.any(list(provider_ids)))
        return set(self._connection.execute(ours).scalars())

    def is_one_being_made(self) -> bool:
        """See the port."""
        made = select(batches.c.id).where(batches.c.state.in_([state.value for state in BEING_MADE])).limit(1)
        return self._connection.execute(made).one_or_none() is not None

    def disown(self, provider_id: str) -> None:
        """See the port."""
        self._connection.execute(
            insert(batches).values(
                id=func.gen_random_uuid(),
                model="",
                state=BatchState.FAILED.value,
                provider_id=provider_id,
                error_code="not_ours",
                error_message="This batch of the provider's was taken for a lost one of ours, and was not.",
            )
        )

    def ask_cancel(self, name: str) -> Sequence[uuid.UUID]:
        """See the port."""
        fits = or_(func.starts_with(cast(batches.c.id, Text), name.lower()), batches.c.provider_id == name)
        open_ = select(batches.c.id).where(batches.c.state.in_([state.value for state in OPEN]), fits)
        found = list(self._connection.execute(open_).scalars())
        if len(found) == 1:
            asked = {"cancel_asked_at": func.coalesce(batches.c.cancel_asked_at, _NOW), "next_look_at": _NOW}
            self._connection.execute(update(batches).where(batches.c.id == found[0]).values(asked))
        return found

    def count_waiting(self) -> int:
        """See the port."""
        counted = select(func.count()).select_from(select(evaluations.c.id).where(_WAITING).limit(_AT_MOST).subquery())
        return int(self._connection.execute(counted).scalar_one())

    def _is_our_turn(self) -> bool:
        """True for the one transaction that may take a batch now; False while a worker is at one."""
        if not self._connection.execute(select(func.pg_try_advisory_xact_lock(_BATCHING))).scalar_one():
            return False
        busy = select(batches.c.id).where(batches.c.lease_until > _NOW).limit(1)
        return self._connection.execute(busy).one_or_none() is None

    def _taken(self, statement: ReturningUpdate[Any] | Any) -> Batch | None:
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else _to_batch(row)

    def _write(self, batch: Batch, values: dict[str, Any]) -> None:
        if self._connection.execute(update(batches).where(_held(batch)).values(values)).rowcount != 1:
            raise LeaseLost(str(batch.id))

    def _items(self, query: Select[Any]) -> list[Item]:
        rows = self._connection.execute(query).all()
        loaded = self._evaluations.loaded([_to_lease(row) for row in rows])
        return [
            Item(row.token, work, row.mine, WorkspaceId(row.workspace_id), row.estimate_micro_usd)
            for row, work in zip(rows, loaded, strict=True)
        ]


def _by_claude(but_not: Collection[WorkspaceId]) -> tuple[ColumnElement[bool], ...]:
    by_claude = rubric_versions.c.judge == JudgeKind.CLAUDE.value
    return (by_claude, rubric_versions.c.workspace_id.not_in(list(but_not))) if but_not else (by_claude,)


def _held(batch: Batch) -> ColumnElement[bool]:
    return (batches.c.id == batch.id) & (batches.c.lease_token == batch.token)


def _of(batch: Batch, tokens: Collection[uuid.UUID]) -> ColumnElement[bool]:
    return (batch_items.c.batch_id == batch.id) & (batch_items.c.token == func.any(list(tokens)))


def _leased(lease_s: float) -> dict[str, Any]:
    return {"lease_token": func.gen_random_uuid(), "lease_until": _NOW + seconds(lease_s)}


_PLAIN = (
    "model",
    "request_count",
    "provider_id",
    "adopted",
    "dissolved",
    "began_at",
    "unsure_since",
    "submitted_at",
    "expires_at",
    "ended_at",
    "collected_at",
    "cancel_told_at",
    "cost_micro_usd",
    "failures",
)
_ESTIMATE = (batch_items.c.workspace_id, batch_items.c.estimate_micro_usd)
_PROMISE = insert(batch_promises).from_select(
    ["batch_id", "workspace_id", "micro_usd"],
    select(
        batch_items.c.batch_id,
        batch_items.c.workspace_id,
        func.coalesce(func.sum(batch_items.c.estimate_micro_usd), 0),
    )
    .where(batch_items.c.batch_id == bindparam("batch", type_=Uuid), batch_items.c.result.is_(None))
    .group_by(batch_items.c.batch_id, batch_items.c.workspace_id),
)
_COUNTS = ("succeeded", "errored", "canceled", "expired")
_COLUMNS = (*batches.c, func.extract("epoch", batches.c.items_leased_until - _NOW).label("items_leased_s"))
_VERSIONS = select(rubric_versions, rubrics.c.content).join(rubrics, rubrics.c.id == rubric_versions.c.rubric_id)
_ITEMS = select(
    batch_items,
    evaluations.c.attempt,
    evaluations.c.max_attempts,
    evaluations.c.started_at,
    evaluations.c.park_count,
    func.coalesce(evaluations.c.lease_token == batch_items.c.token, False).label("mine"),
).join(evaluations, evaluations.c.id == batch_items.c.evaluation_id)


def _to_batch(row: Row[Any]) -> Batch:
    failure = None
    if row.error_kind is not None:
        failure = Failure(FailureKind(row.error_kind), row.error_code, row.error_message)
    return Batch(
        id=row.id,
        token=row.lease_token,
        state=BatchState(row.state),
        cancel_asked=row.cancel_asked_at is not None,
        counts=Counts(*(getattr(row, name) for name in _COUNTS)),
        deaths=row.deaths,
        failure=failure,
        items_leased_s=float(row.items_leased_s or 0.0),
        **{name: getattr(row, name) for name in _PLAIN},
    )


def _values(batch: Batch) -> dict[str, Any]:
    """What a worker writes down: not whether somebody has asked for a cancellation meanwhile."""
    failure = batch.failure
    return {
        "state": batch.state.value,
        **{name: getattr(batch, name) for name in _PLAIN},
        **{name: getattr(batch.counts, name) for name in _COUNTS},
        "error_kind": None if failure is None else failure.kind.value,
        "error_code": "" if failure is None else failure.code,
        "error_message": "" if failure is None else failure.message,
    }


def _to_lease(row: Row[Any]) -> Lease:
    return Lease(row.evaluation_id, row.token, row.attempt, row.max_attempts, row.started_at, row.park_count)


def _to_version(row: Row[Any]) -> RubricVersion:
    spec = JudgeSpec(JudgeKind(row.judge), row.model, row.effort, row.max_tokens, row.votes, row.borderline)
    return RubricVersion(row.id, rubric_from_json(row.content).rubric, spec)
