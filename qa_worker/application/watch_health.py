"""Look at what lasts: rates of failure, an open breaker, spent budgets, dead letters, calls that wait too long.

A condition that begins is one match of its rule. While it goes on its incident does, and nothing more is matched.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from qa_worker import messages
from qa_worker.application.alerting import KnownRule, SpentShare, Vitals
from qa_worker.application.ports import Clock, UnitOfWorkFactory
from qa_worker.domain.alert_rule import Event, RuleKind, matching_event
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.failure_rate import BASELINE_WINDOWS, Tally, too_high


@dataclass(frozen=True, slots=True)
class Watching:
    """What watching needs. `breaker_open` is None where no breaker can be asked; `failed` is told what couldn't be read."""

    uow: UnitOfWorkFactory
    clock: Clock
    vitals: Vitals
    breaker_open: Callable[[], bool | None]
    spent_shares: Callable[[], Sequence[SpentShare]]
    failed: Callable[[RuleKind, StoreUnavailable], None]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that holds now, for one agent or (None) for none in particular."""

    known: KnownRule
    agent_id: uuid.UUID | None
    detail: str


def watch_health(*, watching: Watching) -> int:
    """Look once; returns how many conditions hold. Two who look at once don't double anything.

    Raises:
        StoreUnavailable: the database is out of reach; the next beat looks again.

    """
    with watching.uow() as work:
        rules = work.alert_rules.conditions()
    now = watching.clock.now()
    # Everything is looked at before the transaction: a breaker is asked over the network.
    holding = [condition for known in rules for condition in _holding(known, now, watching)]
    if not holding:
        return 0
    with watching.uow() as work:
        if not work.incidents.watch():
            return 0
        for condition in holding:
            rule = condition.known.rule
            if work.incidents.lasts(rule.id, condition.agent_id, now):
                continue
            event = Event(rule.kind, f"{rule.kind.value}/{now.isoformat()}", condition.agent_id, now, condition.detail)
            for rule_id, agent_id in work.alerts.append(rule.workspace, matching_event([rule], event)):
                work.nudge(messages.raise_alerts(rule_id, agent_id))
        work.commit()
    return len(holding)


def _holding(known: KnownRule, now: datetime, watching: Watching) -> Sequence[Condition]:
    """What of this rule holds now. One part of the system that can't be asked doesn't hide the others."""
    try:
        return list(_LOOKS[known.rule.kind](known, now, watching))
    except StoreUnavailable as error:
        watching.failed(known.rule.kind, error)
        return []


def _failure_rate(known: KnownRule, now: datetime, watching: Watching) -> Iterator[Condition]:
    rule, vitals = known.rule, watching.vitals
    begin = now - timedelta(seconds=rule.window_s or 0)
    recent = vitals.tallies(rule.workspace, since=begin, until=now)
    usual = {}
    if rule.baseline and recent:
        history = timedelta(seconds=(rule.window_s or 0) * BASELINE_WINDOWS)
        usual = dict(vitals.tallies(rule.workspace, since=begin - history, until=begin))
    for agent_id, tally in recent.items():
        detail = too_high(rule, tally, usual.get(agent_id, Tally())) if rule.concerns(agent_id) else None
        if detail is not None:
            yield Condition(known, agent_id, detail)


def _breaker(known: KnownRule, _now: datetime, watching: Watching) -> Iterator[Condition]:
    if watching.breaker_open():
        yield Condition(known, None, "the breaker to the judge is open: calls wait until it answers again")


def _budget(known: KnownRule, _now: datetime, watching: Watching) -> Iterator[Condition]:
    if watching.vitals.spend_limited(known.rule.workspace):
        yield Condition(known, None, "the provider's own spend limit is reached: calls wait until it is raised")
        return
    limit = known.rule.threshold or 1.0
    for spent in watching.spent_shares():
        # What others have spent is none of a workspace's business; what stops everybody is.
        if spent.workspace in ("", known.workspace_name) and spent.share >= limit:
            whose = "the workspace's" if spent.workspace else "the common"
            yield Condition(
                known, None, f"{spent.share:.0%} of {whose} budget of today is spent; the limit is {limit:.0%}"
            )
            return


def _letters(known: KnownRule, now: datetime, watching: Watching) -> Iterator[Condition]:
    rule = known.rule
    letters = watching.vitals.new_letters(rule.workspace, since=now - timedelta(seconds=rule.window_s or 0))
    if letters >= (rule.threshold or 1):
        yield Condition(
            known, None, f"{letters} new dead letters in {rule.window_s} s; the limit is {rule.threshold:g}"
        )


def _depth(known: KnownRule, _now: datetime, watching: Watching) -> Iterator[Condition]:
    limit = known.rule.threshold or 1
    depth = watching.vitals.letter_figures(known.rule.workspace).depth
    if depth >= limit:
        yield Condition(known, None, f"{depth} dead letters are open; the limit is {limit:g}")


def _letters_age(known: KnownRule, _now: datetime, watching: Watching) -> Iterator[Condition]:
    limit = known.rule.threshold or 0
    age = watching.vitals.letter_figures(known.rule.workspace).oldest_open_s
    if age is not None and age >= limit:
        yield Condition(known, None, f"the oldest dead letter is open for {age:.0f} s; the limit is {limit:g} s")


def _queue(known: KnownRule, _now: datetime, watching: Watching) -> Iterator[Condition]:
    limit = known.rule.threshold or 0
    age = watching.vitals.oldest_waiting_s(known.rule.workspace)
    if age is not None and age >= limit:
        yield Condition(known, None, f"the oldest call waits {age:.0f} s for its verdict; the limit is {limit:g} s")


_LOOKS: dict[RuleKind, Callable[[KnownRule, datetime, Watching], Iterator[Condition]]] = {
    RuleKind.FAILURE_RATE: _failure_rate,
    RuleKind.BREAKER_OPEN: _breaker,
    RuleKind.BUDGET_REACHED: _budget,
    RuleKind.DEAD_LETTERS_GROWING: _letters,
    RuleKind.DEAD_LETTERS_DEPTH: _depth,
    RuleKind.DEAD_LETTERS_AGE: _letters_age,
    RuleKind.QUEUE_TOO_OLD: _queue,
}
