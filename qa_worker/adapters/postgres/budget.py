"""What has been spent today, and whether that is too much: a row for each workspace, kept by `expenses`.

What open batches will cost is counted as spent from the moment they are sent: nobody can take it back.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog
from sqlalchemy import Date, Engine, bindparam, func, select, union_all, update

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.expenses import utc_day
from qa_worker.adapters.postgres.tables import batch_promises, batches, daily_spending, evaluations, workspaces
from qa_worker.application.limits import Exceeded, Spending
from qa_worker.application.purse import Left
from qa_worker.domain.batch import BatchState
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.errors import StoreUnavailable

log = structlog.get_logger(__name__)

# Books are read again when they are older than this, by the next request and without its waiting for them ...
_FRESH_S = 1.0
# ... unless they are older than this: then it waits, but not for long ...
_KEPT_S = 5.0
_PATIENCE_S = 2.0
# ... and while the database is away the last ones hold until they are as old as this.
_TRUSTED_S = 30.0
_READ_AGAIN_S = 2.0
# A cap that is raised in the settings is noticed within this time; one that is raised by command, at once.
_LOOK_AGAIN_S = 300.0
_UNKNOWN_WAIT_S = 10.0
_REASON = "budget_spent"
_SENT = (BatchState.CREATING.value, BatchState.IN_PROGRESS.value, BatchState.ENDED.value)
# One statement: what a batch promised and what became of it are never both missing.
_SPENT = union_all(
    select(daily_spending.c.workspace_id, daily_spending.c.micro_usd).where(
        daily_spending.c.day == bindparam("day", type_=Date)
    ),
    select(batch_promises.c.workspace_id, batch_promises.c.micro_usd)
    .join(batches, batches.c.id == batch_promises.c.batch_id)
    .where(batches.c.state.in_(_SENT)),
)
_CAPS = select(workspaces.c.id, workspaces.c.daily_budget_micro_usd).where(
    workspaces.c.daily_budget_micro_usd.is_not(None)
)


@dataclass(frozen=True, slots=True)
class _Books:
    """What each workspace has spent on a day (UTC), and the caps that workspaces have of their own."""

    day: date
    spent: Mapping[uuid.UUID, int]
    total: int
    caps: Mapping[uuid.UUID, int]


class PostgresBudget:
    """Implements the port `Budget`. Caps are micro-dollars a day (UTC); None is no cap.

    A cap may be passed by what is spent while the books are up to 1 s old (a few, where requests are rare) and by what
    is under way at that moment: see docs/operations.md. `exceeded` belongs to one event loop.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        overall: int | None,
        each_workspace: int | None,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._overall = overall
        self._each = each_workspace
        self._now = now
        self._monotonic = monotonic
        self._books: _Books | None = None
        self._read_at = -math.inf
        self._not_before = -math.inf
        self._reading: asyncio.Task[None] | None = None

    async def exceeded(self, workspace: str) -> Exceeded | None:
        """See the port. While the database is away the last books hold for a while; without any, a cap lets nothing through."""
        age_s = self._age_s()
        if age_s > _FRESH_S:
            reading = self._begin_reading()
            if reading is not None and age_s > _KEPT_S:
                await _for_a_while(reading)
        return self._judge(uuid.UUID(workspace))

    def spending(self) -> tuple[Spending, ...]:
        """What each workspace has spent today, and its cap; the first entry is all of them together."""
        books = self._read()
        with store_errors(), self._engine.connect() as connection:
            names = {row.id: row.name for row in connection.execute(select(workspaces.c.id, workspaces.c.name))}
        every = Spending("", books.total, self._overall)
        each = [Spending(name, books.spent.get(key, 0), self._cap(key, books)) for key, name in sorted(names.items())]
        return (every, *sorted(each, key=lambda one: one.workspace))

    def left(self) -> Left:
        """What may still be spent today, read now. Raises StoreUnavailable."""
        books = self._read()
        known = {*books.spent, *books.caps}
        of = {WorkspaceId(one): _less(self._cap(one, books), books.spent.get(one, 0)) for one in known}
        return Left(_less(self._overall, books.total), self._each, of)

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
        books = self._books
        if books is None or self._age_s() > _TRUSTED_S:
            capped = self._overall is not None or self._each is not None or (books is not None and books.caps)
            unknown = Exceeded("What was spent today can't be read from the database.", _UNKNOWN_WAIT_S)
            return unknown if capped else None
        cap = self._cap(workspace, books)
        if cap is not None and books.spent.get(workspace, 0) >= cap:
            return Exceeded("The workspace's budget of the day is spent.", self._wait_s())
        if self._overall is not None and books.total >= self._overall:
            return Exceeded("The budget of the day for all workspaces is spent.", self._wait_s())
        return None

    def _wait_s(self) -> float:
        now = self._now()
        tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return min((tomorrow - now).total_seconds(), _LOOK_AGAIN_S)

    def _cap(self, workspace: uuid.UUID, books: _Books) -> int | None:
        return books.caps.get(workspace, self._each)

    def _age_s(self) -> float:
        """How old the books of this day are, counted from when their reading began."""
        if self._books is None or self._books.day != utc_day(self._now()):
            return math.inf
        return self._monotonic() - self._read_at

    def _begin_reading(self) -> asyncio.Task[None] | None:
        """The reading that goes on or begins now, one for all; None shortly after one that failed."""
        if self._reading is None or self._reading.done():
            if self._monotonic() < self._not_before:
                return None
            self._reading = asyncio.ensure_future(self._read_again())
        return self._reading

    async def _read_again(self) -> None:
        began = self._monotonic()
        try:
            self._books = await asyncio.to_thread(self._read)
        except StoreUnavailable:
            # Or every request would wait for a database that is away.
            self._not_before = self._monotonic() + _READ_AGAIN_S
            log.warning("budget_not_read", known=self._books is not None)
        else:
            self._read_at = began

    def _read(self) -> _Books:
        today = utc_day(self._now())
        spent: Counter[uuid.UUID] = Counter()
        with store_errors(), self._engine.connect() as connection:
            for row in connection.execute(_SPENT, {"day": today}):
                spent[row.workspace_id] += row.micro_usd
            caps = {row.id: row.daily_budget_micro_usd for row in connection.execute(_CAPS)}
        return _Books(today, spent, spent.total(), caps)


async def _for_a_while(reading: asyncio.Task[None]) -> None:
    """Wait for what others may wait for as well. Raises what it raised, if it has ended."""
    done, _ = await asyncio.wait([reading], timeout=_PATIENCE_S)
    for one in done:
        one.result()


def _less(cap: int | None, spent: int) -> int | None:
    return None if cap is None else cap - spent
