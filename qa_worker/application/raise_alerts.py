"""Fold what matched into incidents, and raise the alerts that are due: all of it in one transaction for each incident."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from qa_worker import messages
from qa_worker.application.alerting import Concern, HeldIncident, KnownRule, new_alert
from qa_worker.application.ports import Clock, UnitOfWork, UnitOfWorkFactory
from qa_worker.domain.alert import Named, body_of
from qa_worker.domain.alert_content import WORST_LISTED, About, content_of
from qa_worker.domain.incident import Say, Step, fold
from qa_worker.domain.outcome import Done, Skipped

_SWEPT = 200


@dataclass(frozen=True, slots=True)
class Raising:
    """What raising alerts needs. `max_attempts`: how often a delivery is tried; `at_once`: what a transaction folds at most."""

    uow: UnitOfWorkFactory
    clock: Clock
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

    Returns how many incidents were looked at. Raises StoreUnavailable.
    """
    with raising.uow() as work:
        now = raising.clock.now()
        concerns: list[Concern] = [
            *work.incidents.unfolded(older_than_s=unfolded_for_s, limit=_SWEPT),
            *work.incidents.due(now, limit=_SWEPT),
        ]
    for rule_id, agent_id in dict.fromkeys(concerns):
        raise_alerts(rule_id=rule_id, agent_id=agent_id, raising=raising)
    return len(concerns)


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
