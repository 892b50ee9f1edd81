"""Claiming a delivery: only while its endpoint is on, isn't left alone, and has room."""

from __future__ import annotations

import uuid

from qa_worker.application.delivering import FULL, OFF, PAUSED, Errand, Gate
from qa_worker.application.ports import UnitOfWork
from qa_worker.domain.endpoint import HealthRules, why_not_sent
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Parked, Skipped
from qa_worker.domain.work import WorkState

_OFF = Failure(FailureKind.REJECTED, OFF, "The endpoint is switched off.")
_WAITING = frozenset({WorkState.PENDING, WorkState.QUEUED})


def claim(
    work: UnitOfWork, delivery_id: uuid.UUID, *, rules: HealthRules, lease_s: float
) -> Errand | Parked | Dead | Skipped:
    """Take a delivery, or say why not. The endpoint's row is locked until the transaction ends."""
    gate = work.deliveries.gate(delivery_id)
    if gate is None:
        return Skipped("no such delivery")
    held = _held_back(gate)
    if held is None:
        errand = work.deliveries.claim(delivery_id, gate, rules=rules, lease_s=lease_s)
        if errand is not None:
            return errand
    return _put_back(work, delivery_id, gate, held or Parked(gate.now, FULL))


def _held_back(gate: Gate) -> Parked | Dead | None:
    """Why nothing may be sent to this endpoint now; None where it may."""
    if not gate.active:
        return Dead(OFF)
    if gate.health.paused_until is not None and gate.health.paused_at(gate.now):
        return Parked(gate.health.paused_until, PAUSED)
    return None


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
