"""What can be asked about backlogs and batches, and about verdicts that changed: read-only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from qa_worker.domain.backlog import Selection
from qa_worker.domain.batch import BatchState, Counts
from qa_worker.domain.call import CallId
from qa_worker.domain.changes import Changes, Pair
from qa_worker.domain.work import Lane

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as people see it. `estimate_micro_usd` is for what has no result yet; None where a price isn't known."""

    id: uuid.UUID
    provider_id: str | None
    model: str
    state: BatchState
    request_count: int
    adopted: bool
    dissolved: bool
    created_at: datetime
    age_s: float
    submitted_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    collected_at: datetime | None
    cancel_asked_at: datetime | None
    next_look_at: datetime
    counts: Counts
    estimate_micro_usd: int | None
    cost_micro_usd: int | None
    error_kind: str | None
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class LaneView:
    """Pending work of a workspace in a lane that can wait. `oldest_due_s`: how long the oldest due piece has waited."""

    workspace: str
    lane: Lane
    waiting: int
    oldest_due_s: float | None


@dataclass(frozen=True, slots=True)
class BacklogStatus:
    """Open batches, what waits, and the batches that were over last."""

    open: tuple[BatchView, ...]
    recent: tuple[BatchView, ...]
    waiting: tuple[LaneView, ...]


class BacklogQueries(Protocol):
    """Read-only questions. Each raises StoreUnavailable where the database is away."""

    def status(self) -> BacklogStatus:
        """What there is to know of backlogs and batches now."""
        ...

    def pairs(
        self, selection: Selection, *, rubric: str | None, after: CallId | None, limit: int
    ) -> tuple[Sequence[Pair], CallId | None]:
        """Calls with a current verdict (under a rubric of this name), by their ids; and where the next page begins."""
        ...


def compare(*, queries: BacklogQueries, selection: Selection, rubric: str | None, keep: int) -> Changes:
    """The current verdicts beside the latest older ones, page by page; `keep` of the changed calls are listed."""
    changes = Changes()
    place: CallId | None = None
    while True:
        pairs, place = queries.pairs(selection, rubric=rubric, after=place, limit=_PAGE)
        changes.add(pairs, keep=keep)
        if place is None:
            return changes
