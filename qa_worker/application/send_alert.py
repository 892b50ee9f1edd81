"""Send one alert to one endpoint: claim the delivery, try once, record what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from qa_worker.application._delivery_record import Recording, record
from qa_worker.application.channels import Answer, Channel, Parcel, Vault
from qa_worker.application.delivering import FULL, OFF, PAUSED, Errand, Gate
from qa_worker.application.ports import LogContext, UnitOfWork, UnitOfWorkFactory
from qa_worker.domain.endpoint import EndpointKind, room, why_not_sent
from qa_worker.domain.errors import InvalidInput, LeaseLost, StoreUnavailable
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Outcome, Parked, Skipped
from qa_worker.domain.work import WorkState

LEASE_LOST = "lease lost: another worker has this delivery by now"
_OFF = Failure(FailureKind.REJECTED, OFF, "The endpoint is switched off.")
_WAITING = frozenset({WorkState.PENDING, WorkState.QUEUED})


@dataclass(frozen=True, slots=True)
class Sending:
    """What sending needs of the world. `lease_s` must be longer than any channel takes: it is not extended."""

    uow: UnitOfWorkFactory
    context: LogContext
    channels: Mapping[EndpointKind, Channel]
    vault: Vault
    recording: Recording
    lease_s: float


def send_alert(*, delivery_id: uuid.UUID, sending: Sending) -> Outcome:
    """Try a delivery once. Two messages or two workers change nothing; a late zombie records nothing.

    A worker that dies between sending and recording makes a receiver see the alert again, with the same `webhook-id`.

    Returns:
        `Done`; `Skipped` where there was nothing to do; `RetryAt`, `Parked` or `Dead` as recorded in the row.

    Raises:
        StoreUnavailable: the database is out of reach, so that nothing could be written.

    """
    claimed = _claim(delivery_id, sending)
    if not isinstance(claimed, Errand):
        return claimed
    sending.context.bind(endpoint_id=str(claimed.address.endpoint.id), attempt=claimed.lease.attempt)
    try:
        with _crashes_are_recorded(claimed, sending):
            return record(claimed, _send(claimed, sending), sending.recording)
    except LeaseLost:
        return Skipped(LEASE_LOST)


def _claim(delivery_id: uuid.UUID, sending: Sending) -> Errand | Outcome:
    with sending.uow() as work:
        gate = work.deliveries.gate(delivery_id)
        if gate is None:
            return Skipped("no such delivery")
        taken = _held_back(gate) or _take(work, delivery_id, gate, sending)
        outcome = taken if isinstance(taken, Errand) else _put_back(work, delivery_id, gate, taken)
        work.commit()
    return outcome


def _held_back(gate: Gate) -> Parked | Dead | None:
    """Why nothing may be sent to this endpoint now; None where it may."""
    if not gate.active:
        return Dead(OFF)
    if gate.health.paused_until is not None and gate.health.paused_at(gate.now):
        return Parked(gate.health.paused_until, PAUSED)
    return None


def _take(work: UnitOfWork, delivery_id: uuid.UUID, gate: Gate, sending: Sending) -> Errand | Parked:
    most = room(gate.health, sending.recording.rules)
    errand = work.deliveries.claim(delivery_id, gate, room=most, lease_s=sending.lease_s)
    return errand or Parked(gate.now, FULL)


def _put_back(work: UnitOfWork, delivery_id: uuid.UUID, gate: Gate, held: Parked | Dead) -> Parked | Dead | Skipped:
    """It stays due: whoever ends a delivery to this endpoint, or the dispatcher after its pause, sends it again."""
    status = work.deliveries.status(delivery_id)
    if status is None:
        return Skipped("no such delivery")
    if status.state not in _WAITING or status.not_before > gate.now:
        return Skipped(why_not_sent(status, now=gate.now))
    if isinstance(held, Dead):
        work.deliveries.bury_open(gate.endpoint_id, _OFF)
    else:
        work.deliveries.put_back(delivery_id, wait_s=0, reason=held.reason)
    return held


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
