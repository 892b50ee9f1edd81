"""What a transaction's requests have cost, booked by day and workspace with one statement at its end.

The row of a workspace's day is one that everybody who records its results waits for. So it is touched last, a moment
before the commit, and all who touch several do it in one order.
"""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, date, datetime

from sqlalchemy import Connection, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from qa_worker.adapters.postgres.tables import daily_spending


def utc_day(at: datetime) -> date:
    """The day that this time belongs to in the books."""
    return at.astimezone(UTC).date()


class Expenses:
    """The expenses of one transaction. An unknown price counts as nothing: it can't be added up."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._noted: Counter[tuple[date, uuid.UUID]] = Counter()

    def note(self, workspace: uuid.UUID, day: date, micro_usd: int | None) -> None:
        """Book this with the commit. `day` is in UTC."""
        self._noted[day, workspace] += micro_usd or 0

    def flush(self) -> None:
        """Write what was noted. Nothing may be written after it in this transaction."""
        noted, self._noted = self._noted, Counter()
        rows = [
            {"day": day.isoformat(), "workspace_id": str(workspace), "micro_usd": micro_usd}
            for (day, workspace), micro_usd in sorted(noted.items())
            if micro_usd
        ]
        if rows:
            self._connection.execute(_BOOK, {"rows": rows})


_COLUMNS = [column(one.name, one.type) for one in daily_spending.c]
_ROWS = func.jsonb_to_recordset(bindparam("rows", type_=JSONB)).table_valued(*_COLUMNS).render_derived(with_types=True)
_NEW = insert(daily_spending).from_select(
    [one.name for one in _COLUMNS], select(*_ROWS.c).order_by(_ROWS.c.day, _ROWS.c.workspace_id)
)
_BOOK = _NEW.on_conflict_do_update(
    index_elements=[daily_spending.c.day, daily_spending.c.workspace_id],
    set_={"micro_usd": daily_spending.c.micro_usd + _NEW.excluded.micro_usd},
)
