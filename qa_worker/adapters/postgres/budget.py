"""What has been spent today, and whether that is too much. The attempts of evaluations and the turns of runs are the
books: nothing is counted twice.

What open batches will cost is counted as spent from the moment they are sent: nobody can take it back.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Engine, func, select, update

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.tables import (
    attempts,
    batch_items,
    batches,
    evaluations,
    run_turns,
    runs,
    workspaces,
)
from qa_worker.application.limits import Exceeded, Spending
from qa_worker.application.purse import Left
from qa_worker.domain.batch import BatchState
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_FRESH_S = 5.0
# A cap that is raised in the settings is noticed within this time; one that is raised by command, at once.
_LOOK_AGAIN_S = 300.0
_UNKNOWN_WAIT_S = 10.0
_REASON = "budget_spent"
_PROMISED = (
    select(batch_items.c.workspace_id, func.sum(batch_items.c.estimate_micro_usd).label("micro_usd"))
    .join(batches, batches.c.id == batch_items.c.batch_id)
    .where(
        batches.c.state.in_([BatchState.CREATING.value, BatchState.IN_PROGRESS.value, BatchState.ENDED.value]),
        batch_items.c.result.is_(None),
    )
    .group_by(batch_items.c.workspace_id)
)


@dataclass(frozen=True, slots=True)
class _Books:
    spent: dict[uuid.UUID, int] = field(default_factory=dict)
    caps: dict[uuid.UUID, int] = field(default_factory=dict)


class PostgresBudget:
    """Implements the port `Budget`. Caps are micro-dollars a day (UTC); None is no cap.

    The books are read at most every 5 s in each process, so a cap may be passed by what is under way at that moment.
    Unknown prices count as nothing: they can't be added up.
    """

    def __init__(
        self, engine: Engine, *, overall: int | None, each_workspace: int | None, now: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._overall = overall
        self._each = each_workspace
        self._now = now
        self._books = _Books()
        self._known = False
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def exceeded(self, workspace: str) -> Exceeded | None:
        """See the port. While the database is away the last books hold; without any, a cap lets nothing through."""
        async with self._lock:
            if time.monotonic() - self._read_at > _FRESH_S:
                await self._read_again()
                # Also after a failure, or every request would wait for a database that is away.
                self._read_at = time.monotonic()
        if not self._known and (self._overall is not None or self._each is not None):
            return Exceeded("What was spent today can't be read from the database.", _UNKNOWN_WAIT_S)
        return self._judge(uuid.UUID(workspace))

    async def _read_again(self) -> None:
        try:
            self._books = await asyncio.to_thread(self._read)
        except StoreUnavailable:
            log.warning("budget_not_read", known=self._known)
        else:
            self._known = True

    def spending(self) -> tuple[Spending, ...]:
        """What each workspace has spent today, and its cap; the first entry is all of them together."""
        books = self._read()
        with store_errors(), self._engine.connect() as connection:
            names = {row.id: row.name for row in connection.execute(select(workspaces.c.id, workspaces.c.name))}
        every = Spending("", sum(books.spent.values()), self._overall)
        each = [Spending(name, books.spent.get(key, 0), self._cap(key, books)) for key, name in sorted(names.items())]
        return (every, *sorted(each, key=lambda one: one.workspace))

    def left(self) -> Left:
        """What may still be spent today, read now. Raises StoreUnavailable."""
        books = self._read()
        known = {*books.spent, *books.caps}
        of = {WorkspaceId(one): _less(self._cap(one, books), books.spent.get(one, 0)) for one in known}
        return Left(_less(self._overall, sum(books.spent.values())), self._each, of)

    def set_cap(self, workspace_name: str, micro_usd: int | None) -> None:
        """Give a workspace a cap of its own, or take it away; what waited for the old one is due at once."""
        with store_errors(), self._engine.begin() as connection:
            workspace = ensure_workspace(connection, workspace_name)
            connection.execute(
                update(workspaces).where(workspaces.c.id == workspace).values(daily_budget_micro_usd=micro_usd)
            )
            waiting = (evaluations.c.state == "pending") & (evaluations.c.wait_reason == _REASON)
            connection.execute(
                update(evaluations)
                .where(evaluations.c.workspace_id == workspace, waiting)
                .values(not_before=func.clock_timestamp())
            )

    def _judge(self, workspace: uuid.UUID) -> Exceeded | None:
        now = self._now()
        tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        wait_s = min((tomorrow - now).total_seconds(), _LOOK_AGAIN_S)
        cap = self._cap(workspace, self._books)
        if cap is not None and self._books.spent.get(workspace, 0) >= cap:
            return Exceeded("The workspace's budget of the day is spent.", wait_s)
        if self._overall is not None and sum(self._books.spent.values()) >= self._overall:
            return Exceeded("The budget of the day for all workspaces is spent.", wait_s)
        return None

    def _cap(self, workspace: uuid.UUID, books: _Books) -> int | None:
        return books.caps.get(workspace, self._each)

    def _read(self) -> _Books:
        today = self._now().replace(hour=0, minute=0, second=0, microsecond=0)
        spent = (
            select(evaluations.c.workspace_id, func.sum(attempts.c.cost_micro_usd).label("micro_usd"))
            .join(evaluations, evaluations.c.id == attempts.c.evaluation_id)
            .where(attempts.c.ended_at >= today)
            .group_by(evaluations.c.workspace_id)
        )
        played = (
            select(runs.c.workspace_id, func.sum(run_turns.c.cost_micro_usd).label("micro_usd"))
            .join(runs, runs.c.id == run_turns.c.run_id)
            .where(run_turns.c.created_at >= today)
            .group_by(runs.c.workspace_id)
        )
        own = select(workspaces.c.id, workspaces.c.daily_budget_micro_usd).where(
            workspaces.c.daily_budget_micro_usd.is_not(None)
        )
        with store_errors(), self._engine.connect() as connection:
            totals: Counter[uuid.UUID] = Counter()
            for books in (spent, played, _PROMISED):
                totals.update({row.workspace_id: int(row.micro_usd or 0) for row in connection.execute(books)})
            return _Books(dict(totals), {row.id: row.daily_budget_micro_usd for row in connection.execute(own)})


def _less(cap: int | None, spent: int) -> int | None:
    return None if cap is None else cap - spent
