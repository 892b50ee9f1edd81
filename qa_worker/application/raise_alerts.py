"""Fold what matched into incidents, and raise the alerts that are due: all of it in one transaction for each incident."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from qa_worker import messages
from qa_worker.application.alerting import Concern, HeldIncident, KnownRule, new_alert
from qa_worker.application.ports import Clock, LogContext, UnitOfWork, UnitOfWorkFactory
from qa_worker.domain.alert import Named, body_of
from qa_worker.domain.alert_content import WORST_LISTED, About, content_of
from qa_worker.domain.errors import QaError, StoreUnavailable
from qa_worker.domain.incident import Say, Step, fold
from qa_worker.domain.outcome import Done, Skipped

_SWEPT = 200


class SomeFailed(QaError):
    """Some rules and agents met errors of ours: each stands in the log with its place, the others were looked at."""


@dataclass(frozen=True, slots=True)
class Raising:
    """What raising alerts needs. `max_attempts`: how often a delivery is tried; `at_once`: what a transaction folds at most."""

    uow: UnitOfWorkFactory
    clock: Clock
    context: LogContext
    public_url: str
    max_attempts: int
    at_once: int = 1000


def raise_alerts(*, rule_id: uuid.UUID, agent_id: uuid.UUID | None, raising: Raising) -> Done | Skipped:
    """Look at one rule and agent: open, update or resolve their incident. Doing it twice, or two at once, is harmless.

    Returns:
        `Done` with what was told (`opened`, `digest`, `resolved`, or `nothing`: gathered for later); `Skipped` where
        there was nothing to look at.

    Raises:
        StoreUnavailable: the database is out of reach; the sweep comes back to it.

    """
    with raising.uow() as work:
        known = work.alert_rules.get(rule_id)
        if known is None:
            return Skipped("no such rule")
        held = work.incidents.hold(known.rule, agent_id, raising.clock.now())
        if held is None:
            return Skipped("nothing matched")
        taken = work.incidents.take(held, (rule_id, agent_id), limit=raising.at_once)
        if not taken and not held.incident.match_count:
            return Skipped("folded by another worker")
        step = fold(held.incident, matches=taken, now=raising.clock.now(), cooldown_s=known.rule.cooldown_s)
        work.incidents.save(held, step.incident)
        if step.say is not Say.NOTHING:
            _tell(work, known, agent_id, held, step, raising)
        if taken == raising.at_once:
            work.nudge(messages.raise_alerts(rule_id, agent_id))
        work.commit()
    return Done(step.say.value)


def raise_due_alerts(*, raising: Raising, unfolded_for_s: float) -> int:
    """What beat asks for: matches whose nudge was lost or spared, digests that are due, incidents that are over.

    What goes wrong with one rule and agent stops nothing that comes behind it. Returns how many were looked at.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat looks again.
        SomeFailed: at the end, where some met errors of ours.

    """
    with raising.uow() as work:
        now = raising.clock.now()
        concerns: list[Concern] = [
            *work.incidents.unfolded(older_than_s=unfolded_for_s, limit=_SWEPT),
            *work.incidents.due(now, limit=_SWEPT),
        ]
    faults: list[Exception] = []
    before: Exception | None = None
    for concern in dict.fromkeys(concerns):
        fault = _look(concern, raising)
        if isinstance(fault, StoreUnavailable) and isinstance(before, StoreUnavailable):
            raise fault  # twice in a row it is the database, and not what was looked at
        before = fault
        if fault is not None:
            faults.append(fault)
    if faults:
        raise SomeFailed(f"{len(faults)} of {len(concerns)} could not be looked at")
    return len(concerns)


def _look(concern: Concern, raising: Raising) -> Exception | None:
    """What went wrong with one of them; it is in the log by then."""
    rule_id, agent_id = concern
    try:
        raise_alerts(rule_id=rule_id, agent_id=agent_id, raising=raising)
    except Exception as error:  # noqa: BLE001 - raised at the end: the others are looked at first
        raising.context.fault(error, rule_id=str(rule_id), agent_id=str(agent_id or ""))
        return error
    return None


def _tell(
    work: UnitOfWork, known: KnownRule, agent_id: uuid.UUID | None, held: HeldIncident, step: Step, raising: Raising
) -> None:
    matches = held.incident.gathered + step.incident.match_count - held.incident.match_count
    worst = work.incidents.untold(held.id, at_most=WORST_LISTED)
    cases = work.incidents.cases(worst, in_full=matches == 1 or step.say is Say.OPENED)
    about = About(
        rule=known.rule,
        workspace=Named(known.rule.workspace, known.workspace_name),
        agent=None if agent_id is None else work.incidents.agent(agent_id),
        incident_id=held.id,
        public_url=raising.public_url,
    )
    content = content_of(about, step.incident, step.say, matches=matches, cases=cases, at=raising.clock.now())
    alert = new_alert(content, body_of(content))
    sent = work.alerts.raise_alert(alert, known.endpoints, max_attempts=raising.max_attempts)
    work.incidents.told(held.id, alert.id)
    for delivery_id in sent:
        work.nudge(messages.send_alert(delivery_id))
