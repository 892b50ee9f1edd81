"""Send alerts to one endpoint: claim a delivery, try once, record what came of it, and go on with the endpoint's next."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from qa_worker.application._delivery_claim import claim
from qa_worker.application._delivery_record import Recording, record
from qa_worker.application.channels import Answer, Channel, Parcel, Vault
from qa_worker.application.delivering import Errand
from qa_worker.application.ports import LogContext, UnitOfWorkFactory
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.domain.errors import InvalidInput, LeaseLost, StoreUnavailable
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Outcome, Skipped

LEASE_LOST = "lease lost: another worker has this delivery by now"
# After so long a slot is given back, so that an endpoint with much to take holds up nobody.
_TURN = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Sending:
    """What sending needs of the world. `in_a_row` is how many deliveries of an endpoint one message may lead to."""

    uow: UnitOfWorkFactory
    context: LogContext
    channels: Mapping[EndpointKind, Channel]
    vault: Vault
    recording: Recording
    in_a_row: int = 10


def send_alert(*, delivery_id: uuid.UUID, sending: Sending) -> list[Outcome]:
    """Try a delivery once, and as long as that goes well the endpoint's next ones, which costs half of a message for each.

    Two messages or two workers change nothing; a late zombie records nothing. A worker that dies between sending and
    recording makes a receiver see the alert again, with the same `webhook-id`.

    Returns:
        What became of each: `Done`; `Skipped` where there was nothing to do; `RetryAt`, `Parked` or `Dead` as recorded
        in the row.

    Raises:
        StoreUnavailable: the database is out of reach, so that nothing could be written.

    """
    recording = sending.recording
    with sending.uow() as work:
        claimed = claim(work, delivery_id, rules=recording.rules, lease_s=recording.lease_s)
        work.commit()
    outcomes: list[Outcome] = []
    until = recording.clock.now() + _TURN
    while isinstance(claimed, Errand):
        last = len(outcomes) + 1 >= sending.in_a_row
        outcome, following = _deliver(claimed, sending, until=None if last else until)
        outcomes.append(outcome)
        if following is None:
            return outcomes
        claimed = following
    return [*outcomes, claimed]


def _deliver(errand: Errand, sending: Sending, *, until: datetime | None) -> tuple[Outcome, Errand | None]:
    ids = {"delivery_id": errand.lease.work_id, "endpoint_id": errand.address.endpoint.id}
    sending.context.bind(attempt=errand.lease.attempt, **{name: str(value) for name, value in ids.items()})
    try:
        with _crashes_are_recorded(errand, sending):
            return record(errand, _send(errand, sending), sending.recording, until=until)
    except LeaseLost:
        return Skipped(LEASE_LOST), None


def _send(errand: Errand, sending: Sending) -> Answer:
    address = errand.address
    try:
        parcel = Parcel(
            errand.message_id,
            errand.body,
            sending.recording.clock.now(),
            sending.vault.open(address.target),
            tuple(sending.vault.open(secret) for secret in address.secrets),
        )
    except InvalidInput as error:
        return Answer(Failure(FailureKind.BLOCKED, "no_secret_key", str(error)), 0)
    return sending.channels[address.endpoint.kind].send(parcel)


@contextmanager
def _crashes_are_recorded(errand: Errand, sending: Sending) -> Iterator[None]:
    """A fault of our own is written to the row before it is raised: the attempt counts, and the endpoint isn't blamed."""
    try:
        yield
    except (StoreUnavailable, LeaseLost):
        raise
    except Exception as error:
        message = f"Unexpected {type(error).__name__} while sending; the worker's log has the place."
        failure = Failure(FailureKind.ABANDONED, "internal_error", message)
        record(errand, Answer(failure, 0), sending.recording)
        raise
