"""What can be asked about alerts and dead letters: read-only views, each made for one page or command."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from qa_worker.domain.dead_letter import Choice


@dataclass(frozen=True, slots=True)
class TryView:
    """One try of a delivery, or one attempt of an evaluation, also of a run's own.

    `duration_ms` and what follows are known of deliveries.
    """

    attempt: int
    result: str
    started_at: datetime
    ended_at: datetime
    error_kind: str | None
    error_code: str
    error_message: str
    duration_ms: int | None = None
    status_code: int | None = None
    response_head: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One alert on its way to one endpoint. `replay_of` is the dead delivery that it repeats."""

    id: uuid.UUID
    endpoint: str
    endpoint_kind: str
    state: str
    attempt: int
    max_attempts: int
    not_before: datetime
    wait_reason: str
    message_id: str
    replay_of: uuid.UUID | None
    created_at: datetime
    delivered_at: datetime | None
    response_status: int | None
    error_code: str
    error_message: str
    tries: tuple[TryView, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertView:
    """One alert with its deliveries, the oldest first. `body` is the document that is sent, filled where one is asked for."""

    id: uuid.UUID
    workspace: str
    event: str
    severity: str
    title: str
    rule: str | None
    agent: str | None
    incident_id: uuid.UUID | None
    evaluation_id: uuid.UUID | None
    call_id: uuid.UUID | None
    created_at: datetime
    deliveries: tuple[DeliveryView, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LetterView:
    """One dead letter. `deaths` counts from 1; `again_of` is the letter whose replay this one died of.

    `outcome` is what the replay came to so far: `delivered`, `pass`, `passed`, `sent` or a state of work; empty without
    a replay. `tries` are filled where one letter is asked for.
    """

    id: uuid.UUID
    kind: str
    ref_id: uuid.UUID
    workspace: str | None
    endpoint: str | None
    queue: str
    task: str
    reason: str
    attempts: int
    deaths: int
    first_error: str
    last_error: str
    payload: Mapping[str, Any]
    state: str
    died_at: datetime
    announced_at: datetime | None
    settled_at: datetime | None
    settled_by: str
    note: str
    replay_ref: uuid.UUID | None
    again_of: uuid.UUID | None
    outcome: str
    tries: tuple[TryView, ...] = ()


@dataclass(frozen=True, slots=True)
class LetterFigures:
    """How many letters are open, of each kind, for how long (seconds) the oldest one, and how many the queue lacks."""

    open_by_kind: Mapping[str, int]
    oldest_open_s: float | None
    unannounced: int

    @property
    def depth(self) -> int:
        """All open letters."""
        return sum(self.open_by_kind.values())


class AlertQueries(Protocol):
    """Read-only questions. Each raises StoreUnavailable where the database is away.

    Lists have the newest first; `before` is the id of the last one of the page before. Raises InvalidInput where nobody
    knows it.
    """

    def alerts(self, workspace: str, *, before: uuid.UUID | None, limit: int) -> Sequence[AlertView]:
        """Alerts of a workspace, without tries and bodies."""
        ...

    def alert(self, alert_id: uuid.UUID) -> AlertView | None:
        """One alert with everything."""
        ...

    def letters(self, choice: Choice, *, before: uuid.UUID | None, limit: int) -> Sequence[LetterView]:
        """Dead letters."""
        ...

    def letter(self, letter_id: uuid.UUID) -> LetterView | None:
        """One dead letter with its tries."""
        ...

    def letter_figures(self) -> LetterFigures:
        """Depth and age, for metrics."""
        ...
