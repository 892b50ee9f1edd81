"""Recording what came of a delivery, in one transaction: the row, the try, the endpoint's health, what goes next."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from qa_worker import messages
from qa_worker.application._delivery_claim import claim
from qa_worker.application.alerting import new_alert
from qa_worker.application.channels import Answer
from qa_worker.application.delivering import OFF, DeliveryRecord, EndpointRef, Errand
from qa_worker.application.ports import Clock, Jitter, Records, UnitOfWork
from qa_worker.domain.alert import AlertEvent, Content, EndpointName, Named, body_of
from qa_worker.domain.alert_rule import AlertSeverity
from qa_worker.domain.endpoint import Health, HealthRules, after_failure, is_given_up
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt
from qa_worker.domain.retry import RetryPolicy, Tried, next_step

# Ours, not the endpoint's.
_NOT_ITS_FAULT = frozenset({FailureKind.BLOCKED, FailureKind.HELD, FailureKind.ABANDONED})
GONE_REASON = "It answered 410: it wants no more alerts."


@dataclass(frozen=True, slots=True)
class SwitchedOff:
    """An endpoint was switched off: why, how many others were told of it, how many alerts died with it."""

    endpoint: EndpointRef
    reason: str
    told: int
    dead: int


@dataclass(frozen=True, slots=True)
class Recording:
    """What recording needs.

    `limit` is how many deliveries may be under way to all endpoints together. `lease_s` must be longer than any channel
    takes: it is not extended. `switched_off` is told of each endpoint that was: its workspace may have no other one that
    could be.
    """

    records: Records
    clock: Clock
    jitter: Jitter
    policy: RetryPolicy
    rules: HealthRules
    limit: int
    lease_s: float
    switched_off: Callable[[SwitchedOff], None]


def record(
    errand: Errand, answer: Answer, recording: Recording, *, until: datetime | None = None
) -> tuple[Done | RetryAt | Parked | Dead, Errand | None]:
    """Decide what an answer means, and write it down; what was decided, and the endpoint's next delivery.

    That one is claimed here where this one arrived before `until`, when the sender's turn ends, or else a message is
    sent for it: it leaves now, not with the next beat, or an endpoint would get no more than its room in a second.

    Raises LeaseLost, StoreUnavailable.
    """
    now = recording.clock.now()
    step = _step(errand, answer, recording, now)
    taken: list[Errand] = []
    off: list[SwitchedOff] = []

    def write(work: UnitOfWork) -> None:
        taken.clear()
        off.clear()
        if not _write_step(work, errand, answer, step, now):
            return
        off.extend(_note_health(work, errand, answer, recording))
        following = work.deliveries.queue_next(errand.gate.endpoint_id, recording.rules)
        if following is None:
            return
        if answer.failure is not None or until is None or now >= until:
            work.nudge(messages.send_alert(following))
            return
        claimed = claim(work, following, rules=recording.rules, lease_s=recording.lease_s)
        if isinstance(claimed, Errand):
            taken.append(claimed)

    recording.records.write(write)
    for one in off:
        recording.switched_off(one)
    return step, taken[0] if taken else None


def _note_health(work: UnitOfWork, errand: Errand, answer: Answer, recording: Recording) -> Iterable[SwitchedOff]:
    """Note what this says of the endpoint; that it was switched off for it, where it was."""
    endpoint, slow_s = errand.address.endpoint, recording.rules.slow_s
    took_s = answer.duration_ms / 1000
    if answer.failure is None:
        work.endpoints.succeeded(endpoint.id, took_s=took_s, slow_s=slow_s)
    elif answer.failure.kind not in _NOT_ITS_FAULT:
        work.endpoints.took(endpoint.id, took_s, slow_s=slow_s)
        return _worse(work, endpoint, answer, answer.failure, recording)
    return ()


def _step(errand: Errand, answer: Answer, recording: Recording, now: datetime) -> Done | RetryAt | Parked | Dead:
    if answer.failure is None:
        return Done("delivered")
    tried = Tried(errand.lease.attempt, errand.lease.parked)
    return next_step(recording.policy, answer.failure, tried=tried, now=now, jitter=recording.jitter.fraction())


def _write_step(
    work: UnitOfWork, errand: Errand, answer: Answer, step: Done | RetryAt | Parked | Dead, now: datetime
) -> bool:
    """The row and the try. The row gets seconds, counted by the database's clock: a worker's own may be wrong."""
    lease = errand.lease
    match step:
        case Done():
            return work.deliveries.delivered(lease, DeliveryRecord("delivered", now, answer))
        case RetryAt(when, reason):
            wait_s = (when - now).total_seconds()
            retry = DeliveryRecord("retry", now, answer)
            return work.deliveries.wait(lease, wait_s=wait_s, reason=reason, counts=True, record=retry)
        case Parked(until, reason):
            wait_s = (until - now).total_seconds()
            parked = DeliveryRecord("parked", now, answer)
            return work.deliveries.wait(lease, wait_s=wait_s, reason=reason, counts=False, record=parked)
        case Dead():
            return work.deliveries.bury(lease, DeliveryRecord("dead", now, answer))
        case _:
            assert_never(step)


def _worse(
    work: UnitOfWork, endpoint: EndpointRef, answer: Answer, failure: Failure, recording: Recording
) -> Iterable[SwitchedOff]:
    """The endpoint failed: it may get a pause, or be switched off."""
    before, now = work.endpoints.hold(endpoint.id)
    health = after_failure(
        before, failure, rules=recording.rules, now=now, max_wait_s=recording.policy.max_retry_after_s
    )
    work.endpoints.save_health(endpoint.id, health)
    if answer.gone:
        return _switch_off(work, endpoint, health, GONE_REASON, recording)
    if is_given_up(health, rules=recording.rules, now=now):
        days = recording.rules.off_after_s / 86_400
        reason = f"It has failed for {days:g} days, {health.consecutive_failures} times in a row: {failure.message}"
        return _switch_off(work, endpoint, health, reason, recording)
    return ()


def _switch_off(
    work: UnitOfWork, endpoint: EndpointRef, health: Health, reason: str, recording: Recording
) -> Iterable[SwitchedOff]:
    """Nothing more is sent to it, what waits for it becomes dead letters, and the workspace's others are told."""
    current = work.endpoints.get(endpoint.id)
    if current is None or not current.active:
        return ()  # another delivery has seen to it
    work.endpoints.switch(endpoint.id, on=False, reason=reason)
    dead = work.deliveries.bury_open(endpoint.id, Failure(FailureKind.REJECTED, OFF, "The endpoint was switched off."))
    told = [one.ref.id for one in work.endpoints.all(endpoint.workspace_name) if one.active and one.ref != endpoint]
    content = Content(
        # One for each time that it is switched off.
        alert_id=uuid.uuid5(endpoint.id, f"disabled:{health.failing_since}"),
        event=AlertEvent.ENDPOINT_DISABLED,
        severity=AlertSeverity.CRITICAL,
        title=f"Endpoint {endpoint.name} is switched off",
        at=recording.clock.now(),
        workspace=Named(endpoint.workspace, endpoint.workspace_name),
        detail=f"{reason} Of its alerts {dead} became dead letters with it.",
        endpoint=EndpointName(endpoint.id, endpoint.name, endpoint.kind.value),
    )
    alert = new_alert(content, body_of(content))
    raised = work.alerts.raise_alert(alert, told, max_attempts=recording.policy.max_attempts)
    for delivery_id in work.deliveries.queue_new(raised, recording.rules, limit=recording.limit):
        work.nudge(messages.send_alert(delivery_id))
    return (SwitchedOff(endpoint, reason, told=len(raised), dead=dead),)
