"""Choosing calls that are graded later, and by which way they go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane, WorkState


class Choice(StrEnum):
    """Which of the calls that have no done evaluation under the rubric version that holds for them now.

    A call has one evaluation under a version, so what has one is never chosen: the same grading is not done twice.
    """

    ALL = "all"
    MISSING = "missing"
    """Those that have no done evaluation at all."""
    OLD_RUBRIC = "old_rubric"
    """Those that have one under another version."""


class Via(StrEnum):
    """The way that calls go. AUTO is BATCH for Claude, and QUEUE for the rules judge, which has no batches."""

    AUTO = "auto"
    BATCH = "batch"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Selection:
    """Calls by workspace, agent (its id as calls name it) and the time when they were received; None is any.

    `since` is inclusive, `until` isn't; both are aware.
    """

    workspace: str | None = None
    agent: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    choice: Choice = Choice.ALL


class Standing(StrEnum):
    """What is to be done with a call that was chosen; the values are said to people."""

    NEW = "new"
    MOVED = "moved from another lane"
    THERE = "waiting already"
    LIVE = "waiting in the live lane"
    UNDER_WAY = "under way"
    DEAD = "given up on (qa-worker retry)"


TO_DO = frozenset({Standing.NEW, Standing.MOVED})
MOVABLE = frozenset({Lane.BACKLOG, Lane.BATCH})


def lane_for(via: Via, judge: JudgeKind) -> Lane:
    """The lane of calls that go this way. Raises InvalidInput where there is no such way."""
    if judge is JudgeKind.CLAUDE:
        return Lane.BACKLOG if via is Via.QUEUE else Lane.BATCH
    if via is Via.BATCH:
        raise InvalidInput("--via", "the rules judge has no batches", "Use --via queue, or set ANTHROPIC_API_KEY.")
    return Lane.BACKLOG


def standing(state: WorkState | None, lane: Lane | None, *, wanted: Lane) -> Standing:
    """What becomes of a call whose evaluation is in this state and lane (None: it has none) when it should be in `wanted`.

    Live work stays what it is: it was promised soon, and a batch may take a day. So does what a run waits for.
    """
    if state is None:
        return Standing.NEW
    if state is WorkState.DEAD:
        return Standing.DEAD
    if state is not WorkState.PENDING:
        return Standing.UNDER_WAY
    if lane is wanted:
        return Standing.THERE
    return Standing.MOVED if lane in MOVABLE else Standing.LIVE


def batches_needed(*, requests: int, body_bytes: int, max_requests: int, max_bytes: int) -> int:
    """How many batches so many requests make, of so many bytes together."""
    return max(math.ceil(requests / max_requests), math.ceil(body_bytes / max_bytes))
