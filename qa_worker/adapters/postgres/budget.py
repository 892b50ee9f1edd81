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
from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Engine,
    bindparam,
    delete,
    func,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.expenses import utc_day
from qa_worker.adapters.postgres.tables import (
    batch_promises,
    batches,
    daily_spending,
    evaluations,
    overall_budget,
    rubric_versions,
    runs,
    workspaces,
)
from qa_worker.application.limits import SPENT, Exceeded, Spending
from qa_worker.application.purse import Left
from qa_worker.domain.batch import BatchState
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.work import Lane, WorkState

log = structlog.get_logger(__name__)

# Books are read again when they are older than this, by the next request and without its waiting for them ...
_FRESH_S = 1.0
# ... unless they are older than this: then it waits, but not for long ...
_KEPT_S = 5.0
_PATIENCE_S = 2.0
# ... and while the database is away the last ones hold until they are as old as this.
_TRUSTED_S = 30.0
_READ_AGAIN_S = 2.0
# Nothing is held back by books that are older than this: the cap may have been raised, and a row that waits waits long.
_SURE_S = 0.2
# A row waits no longer than this, as for a closed gate: dispatchers look at the books themselves, and send nothing that
# would be held back again.
_LOOK_AGAIN_S = 15.0
_UNKNOWN_WAIT_S = 10.0
_NOW = func.clock_timestamp()
_OF_ANY_LANE = evaluations.c.lane.in_([lane.value for lane in Lane])
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
_OVERALL = select(overall_budget.c.daily_micro_usd)
# Of two at once the later one holds.
_NEW_OVERALL = insert(overall_budget)
_SET_OVERALL = _NEW_OVERALL.on_conflict_do_update(
    index_elements=[overall_budget.c.single], set_={"daily_micro_usd": _NEW_OVERALL.excluded.daily_micro_usd}
)


@dataclass(frozen=True, slots=True)
class _Books:
    """What each workspace has spent on a day (UTC), the caps that workspaces have of their own, and that of all together
    where it isn't the one of the settings.
    """

    day: date
    spent: Mapping[uuid.UUID, int]
    total: int
    caps: Mapping[uuid.UUID, int]
    overall: int | None


class PostgresBudget:
    """Implements the port `Budget`. Caps are micro-dollars a day (UTC); None is no cap.

    `overall` and `each_workspace` hold where no cap was set by command.

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
        if age_s > _KEPT_S:
            await self._read_anew()
        elif age_s > _FRESH_S:
            self._begin_reading()
        spent = self._judge(uuid.UUID(workspace))
        if spent is None or self._age_s() <= _SURE_S:
            return spent
        await self._read_anew()
        return self._judge(uuid.UUID(workspace))

    def spending(self) -> tuple[Spending, ...]:
        """What each workspace has spent today, and its cap; the first entry is all of them together."""
        books = self._read()
        with store_errors(), self._engine.connect() as connection:
            names = {row.id: row.name for row in connection.execute(select(workspaces.c.id, workspaces.c.name))}
        every = Spending("", books.total, self._overall_cap(books))
        each = [Spending(name, books.spent.get(key, 0), self._cap(key, books)) for key, name in sorted(names.items())]
        return (every, *sorted(each, key=lambda one: one.workspace))

    def left(self) -> Left:
        """What may still be spent today, read now. Raises StoreUnavailable."""
        books = self._read()
        known = {*books.spent, *books.caps}
        of = {WorkspaceId(one): _less(self._cap(one, books), books.spent.get(one, 0)) for one in known}
        return Left(_less(self._overall_cap(books), books.total), self._each, of)

    def set_cap(self, workspace_name: str, micro_usd: int | None) -> None:
        """Give a workspace a cap of its own, or take it away; what waited for the old one is due at once."""
        with store_errors(), self._engine.begin() as connection:
            workspace = ensure_workspace(connection, workspace_name)
            connection.execute(
                update(workspaces).where(workspaces.c.id == workspace).values(daily_budget_micro_usd=micro_usd)
            )
            _wake(connection, rubric_versions.c.workspace_id == workspace, runs.c.workspace_id == workspace)

    def set_overall_cap(self, micro_usd: int | None) -> None:
        """Cap all workspaces together, or go back to the cap of the settings; what waited is due at once."""
        with store_errors(), self._engine.begin() as connection:
            connection.execute(delete(overall_budget))
            if micro_usd is not None:
                connection.execute(_SET_OVERALL.values(daily_micro_usd=micro_usd))
            _wake(connection, true(), true())

    def _judge(self, workspace: uuid.UUID) -> Exceeded | None:
        books = self._books
        if books is None or self._age_s() > _TRUSTED_S:
            unknown = Exceeded("What was spent today can't be read from the database.", _UNKNOWN_WAIT_S)
            return unknown if self._is_capped(books) else None
        cap = self._cap(workspace, books)
        if cap is not None and books.spent.get(workspace, 0) >= cap:
            return Exceeded("The workspace's budget of the day is spent.", self._wait_s())
        overall = self._overall_cap(books)
        if overall is not None and books.total >= overall:
            return Exceeded("The budget of the day for all workspaces is spent.", self._wait_s())
        return None

    def _wait_s(self) -> float:
        now = self._now()
        tomorrow = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return min((tomorrow - now).total_seconds(), _LOOK_AGAIN_S)

    def _is_capped(self, books: _Books | None) -> bool:
        """Whether there is any cap, as far as these books say."""
        given = self._overall is not None or self._each is not None
        return given or (books is not None and (bool(books.caps) or books.overall is not None))

    def _overall_cap(self, books: _Books) -> int | None:
        return self._overall if books.overall is None else books.overall

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

    async def _read_anew(self) -> None:
        """Wait for newer books, for a while: others may wait for the same ones. Raises what reading them raised."""
        reading = self._begin_reading()
        if reading is not None:
            done, _ = await asyncio.wait([reading], timeout=_PATIENCE_S)
            for one in done:
                one.result()

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
            overall = connection.execute(_OVERALL).scalar_one_or_none()
        return _Books(today, spent, spent.total(), caps, overall)


def _wake(connection: Connection, whose: ColumnElement[bool], whose_runs: ColumnElement[bool]) -> None:
    """Make due what waits for a budget: evaluations of these rubric versions, and runs.

    Where somebody is at a row this very moment it is left to him. Rows that are due already are not touched: there may
    be very many, and the dispatcher will send them.
    """
    for table, mine in (
        # By lane and version, as the index of due work has them.
        (evaluations, _OF_ANY_LANE & evaluations.c.rubric_version_id.in_(select(rubric_versions.c.id).where(whose))),
        (runs, whose_runs),
    ):
        waits = (table.c.state == WorkState.PENDING.value) & (table.c.wait_reason == SPENT)
        chosen = select(table.c.id).where(mine, waits, table.c.not_before > _NOW).with_for_update(skip_locked=True)
        due = update(table).where(table.c.id.in_(chosen.cte("chosen").select())).values(not_before=_NOW)
        connection.execute(due)


def _less(cap: int | None, spent: int) -> int | None:
    return None if cap is None else cap - spent
