"""The state machine of every piece of work: a row that is claimed, acted on and recorded.

    pending --sent--> queued --claimed--> running --recorded--> done
       ^ ^------------------------------claimed---^   |
       |                                              +--failed, attempts left, or parked--> pending (waits for not_before)
       |                                              +--failed for good-------------------> dead
       +-------- lease ran out, attempts left --------+

What has no room after all goes from queued back to pending, and what can't succeed any more is dead without a claim.
The attempt is counted when the work is claimed, before it begins, so that work which kills its process is bounded too.
A lease token fences the result: whoever lost the lease records nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from qa_worker.domain.failure import FailureKind


class WorkState(StrEnum):
    """Where a piece of work stands. DONE and DEAD are final; a replay is a new, manual start."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"


FINAL = frozenset({WorkState.DONE, WorkState.DEAD})
TRANSITIONS: frozenset[tuple[WorkState, WorkState]] = frozenset(
    {
        (WorkState.PENDING, WorkState.QUEUED),
        (WorkState.PENDING, WorkState.RUNNING),
        (WorkState.QUEUED, WorkState.RUNNING),
        (WorkState.QUEUED, WorkState.PENDING),
        (WorkState.PENDING, WorkState.DEAD),
        (WorkState.QUEUED, WorkState.DEAD),
        (WorkState.RUNNING, WorkState.PENDING),
        (WorkState.RUNNING, WorkState.DONE),
        (WorkState.RUNNING, WorkState.DEAD),
    }
)


WORKER_DIED = "the worker died"
"""What a row waits for whose worker died: it may have been the cause, and is sent alone from then on."""


class Lane(StrEnum):
    """What goes first: a call that just ended, or a backlog that can wait."""

    LIVE = "live"
    BACKLOG = "backlog"
    BATCH = "batch"
    """What waits for a Message Batch, at half price within a day. No message is sent for it."""
    RUN = "run"
    """The grading of a scenario's run: done by whoever plays the run, and no figure of production calls."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one row for a while. `token` must be shown with every later write.

    `parked` counts how often the work was put back without its fault: what the provider's limits are waited for by.
    """

    work_id: uuid.UUID
    token: uuid.UUID
    attempt: int
    max_attempts: int
    started_at: datetime
    parked: int = 0


@dataclass(frozen=True, slots=True)
class WorkStatus:
    """A row's state as others see it."""

    state: WorkState
    attempt: int
    max_attempts: int
    not_before: datetime
    wait_reason: str
    error_kind: FailureKind | None = None
    error_code: str = ""
    error_message: str = ""


def why_not_claimed(status: WorkStatus, *, now: datetime) -> str:
    """Why a message about this row has nothing to do: the text of a `Skipped`."""
    match status.state:
        case WorkState.DONE:
            return "already evaluated"
        case WorkState.DEAD:
            return "given up on before"
        case WorkState.RUNNING:
            return "being evaluated by another worker"
        case WorkState.PENDING if status.not_before > now:
            return "waiting for its next attempt"
        case _:
            return "claimed by another worker"
