"""What sending alerts needs of the database: endpoints and how they fare, deliveries as work, dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from qa_worker.application.channels import Answer
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.endpoint import EndpointKind, Health, HealthRules
from qa_worker.domain.failure import Failure
from qa_worker.domain.work import Lease, WorkStatus

PAUSED, FULL, OFF = "endpoint_paused", "endpoint_busy", "endpoint_off"
"""Why a delivery is not sent now: its endpoint is left alone, has enough under way, or is switched off."""
NO_END = "endpoint_down"
"""Its endpoint has been failing for as long as all tries of the delivery would take."""


@dataclass(frozen=True, slots=True)
class EndpointRef:
    """An endpoint and whose it is."""

    id: uuid.UUID
    workspace: WorkspaceId
    workspace_name: str
    name: str
    kind: EndpointKind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as people see it: of its target only scheme, host and port, of its secrets nothing."""

    ref: EndpointRef
    target_hint: str
    active: bool
    disabled_reason: str
    health: Health
    last_success_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint to be stored, its target and secret sealed."""

    id: uuid.UUID
    workspace_name: str
    name: str
    kind: EndpointKind
    target_hint: str
    target: bytes = field(repr=False)
    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """What is needed to send to an endpoint, still sealed. The current secret comes first."""

    endpoint: EndpointRef
    target: bytes = field(repr=False)
    secrets: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Gate:
    """A delivery's endpoint, locked until the transaction ends, so that no two claims count the same room.

    `now` is the database's clock.
    """

    endpoint_id: uuid.UUID
    active: bool
    health: Health
    now: datetime


@dataclass(frozen=True, slots=True)
class Errand:
    """A delivery that is ours until its lease runs out, with all that it needs."""

    lease: Lease
    gate: Gate
    address: Address
    message_id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """What is written about one try. `result` is `delivered`, `retry`, `parked` or `dead`."""

    result: str
    ended_at: datetime
    answer: Answer

    @property
    def failure(self) -> Failure | None:
        """Why it wasn't delivered."""
        return self.answer.failure


class Endpoints(Protocol):
    """Receivers of alerts."""

    def add(self, endpoint: NewEndpoint) -> None:
        """Store an endpoint. Raises InvalidInput where its workspace has one of this name."""
        ...

    def all(self, workspace_name: str | None = None) -> Sequence[Endpoint]:
        """The endpoints of a workspace, or of all of them, by name."""
        ...

    def get(self, endpoint_id: uuid.UUID) -> Endpoint | None:
        """One endpoint."""
        ...

    def named(self, workspace_name: str, name: str) -> Endpoint | None:
        """The endpoint of this name."""
        ...

    def address(self, endpoint_id: uuid.UUID) -> Address | None:
        """Where it is, sealed."""
        ...

    def rotate_secret(self, endpoint_id: uuid.UUID, sealed: bytes, *, overlap_s: float) -> None:
        """Make this the current secret; the one before it signs, too, for so many seconds more."""
        ...

    def switch(self, endpoint_id: uuid.UUID, *, on: bool, reason: str = "") -> None:
        """Switch it on, as good as new, or off."""
        ...

    def hold(self, endpoint_id: uuid.UUID) -> tuple[Health, datetime]:
        """How it fares, locked until the transaction ends, and the database's time."""
        ...

    def save_health(self, endpoint_id: uuid.UUID, health: Health) -> None:
        """Store how it fares."""
        ...

    def took(self, endpoint_id: uuid.UUID, took_s: float, *, slow_s: float) -> None:
        """It took so long for a delivery: written where this, or what is known, is more than `slow_s`."""
        ...

    def succeeded(self, endpoint_id: uuid.UUID, *, took_s: float, slow_s: float) -> None:
        """It took an alert: whatever was wrong is over. A pause that lasts began meanwhile, or was asked for: it holds.

        What it took is noted as by `took`.
        """
        ...

    def sealed(self) -> Sequence[Address]:
        """What is sealed, of all endpoints."""
        ...

    def reseal(self, endpoint_id: uuid.UUID, target: bytes, secrets: Sequence[tuple[bytes, bytes]]) -> None:
        """Replace what is sealed: the target, and each of these secrets (before, after)."""
        ...


class Deliveries(Protocol):
    """Deliveries as work: claimed, sent, recorded. What dies leaves a dead letter in the same transaction."""

    def gate(self, delivery_id: uuid.UUID) -> Gate | None:
        """How its endpoint fares; None where nobody knows such a delivery."""
        ...

    def status(self, delivery_id: uuid.UUID) -> WorkStatus | None:
        """Where it stands."""
        ...

    def claim(self, delivery_id: uuid.UUID, gate: Gate, *, rules: HealthRules, lease_s: float) -> Errand | None:
        """Take it, if it is free and due, and fewer run to its endpoint than it has room for. Commit before sending.

        Of a slow one also only where fewer than `slow_in_flight` run to slow ones: about, because two who claim at the
        same moment for two of them don't wait for each other.
        """
        ...

    def put_back(self, delivery_id: uuid.UUID, *, wait_s: float, reason: str) -> None:
        """It was sent to a worker and can't be tried now: it waits again, with all its attempts."""
        ...

    def delivered(self, lease: Lease, record: DeliveryRecord) -> bool:
        """It arrived. Raises LeaseLost. False, and nothing changed, where a commit had written it whose answer was lost."""
        ...

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, record: DeliveryRecord) -> bool:
        """Back to pending for so many seconds; the attempt is undone unless it `counts`. As `delivered`."""
        ...

    def bury(self, lease: Lease, record: DeliveryRecord) -> bool:
        """Given up, with a dead letter. As `delivered`."""
        ...

    def bury_open(self, endpoint_id: uuid.UUID, failure: Failure) -> int:
        """Give up what waits for this endpoint, with dead letters; returns how many."""
        ...

    def bury_hopeless(self, rules: HealthRules, *, patience_s: float, limit: int) -> int:
        """Give up what waits for endpoints that are off, and what has waited that long for ones that fail; how many.

        Of the latter never what was not tried yet, nor what has its next try still before it.
        """
        ...

    def queue_new(self, delivery_ids: Sequence[uuid.UUID], rules: HealthRules, *, limit: int) -> Sequence[uuid.UUID]:
        """Note that messages are about to be sent: for those that are due and for which their endpoints have room.

        `limit` is how many deliveries may be queued or running to all endpoints together.
        """
        ...

    def queue_next(self, endpoint_id: uuid.UUID, rules: HealthRules) -> uuid.UUID | None:
        """As `queue_new`, for the one that is next at this endpoint: it takes the place of one that ends.

        None of a slow one, whose place goes to the slow one that has waited longest.
        """
        ...

    def queue_due(self, rules: HealthRules, *, limit: int, batch: int) -> Sequence[uuid.UUID]:
        """As `queue_new`, for all that is due: endpoints take turns, each with its live ones first, then its oldest."""
        ...

    def free_expired(self, *, limit: int) -> tuple[int, int]:
        """End the attempts of dead workers: back to pending, or dead where attempts are used up. (freed, buried)."""
        ...

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[uuid.UUID]:
        """Deliveries queued longer ago than that and never claimed, except for as many as have messages `waiting`."""
        ...
