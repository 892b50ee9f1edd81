"""Folding matches into incidents, on real PostgreSQL: told once, gathered, told in digests, ended."""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from qa_worker import messages
from qa_worker.adapters.postgres.tables import alert_matches, dead_letters
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.application.delivering import OFF
from qa_worker.application.raise_alerts import SomeFailed, raise_alerts, raise_due_alerts
from qa_worker.domain.alert_rule import AlertRule, RuleKind
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.outcome import Done, Outcome, Skipped
from tests.alerting import COOLDOWN_S, WORKSPACE, Desk, add_calls, add_endpoint, add_rule, agent_of, remove_rule, rows
from tests.conftest import Outbox, UnitsOfWork

pytestmark = pytest.mark.services


@pytest.fixture
def desk(uow: UnitsOfWork) -> Desk:
    """A workspace with an agent."""
    add_calls(uow, "call-1")
    return Desk(uow)


def body(row: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(row.body)
    return read


def test_the_first_match_is_an_alert_at_once_for_every_active_endpoint(desk: Desk, outbox: Outbox) -> None:
    on, off = add_endpoint(desk.uow, "on"), add_endpoint(desk.uow, "off", state="disabled")
    rule, agent = add_rule(desk.uow, to=[on, off]), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    outbox.sent.clear()

    assert desk.look(rule, agent) == Done("opened")

    (alert,) = desk.alerts()
    assert (alert.event, alert.severity, alert.rule_id) == ("evaluation.failed", "warning", rule.id)
    delivery = next(one for one in desk.deliveries() if one.endpoint_id == on)
    assert (delivery.state, delivery.max_attempts) == ("pending", 7)
    assert delivery.message_id == f"msg_{delivery.id.hex}"
    assert outbox.sent == [messages.send_alert(delivery.id)]
    assert body(alert)["data"]["incident"]["id"] == str(desk.incident().id)


def test_an_alert_for_an_endpoint_that_is_off_is_kept_as_a_dead_letter(desk: Desk, outbox: Outbox) -> None:
    off = add_endpoint(desk.uow, "off", state="disabled")
    rule, agent = add_rule(desk.uow, to=[off]), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    outbox.sent.clear()

    assert desk.look(rule, agent) == Done("opened")

    (delivery,) = desk.deliveries()
    assert (delivery.endpoint_id, delivery.state, delivery.error_code) == (off, "dead", OFF)
    (letter,) = rows(desk.uow, dead_letters)
    assert (letter.kind, letter.ref_id, letter.endpoint_id) == ("alert", delivery.id, off)
    assert (letter.reason, letter.attempts, letter.state) == (OFF, 0, "open")
    assert letter.first_error == letter.last_error == "The endpoint is switched off."
    assert outbox.sent == []
    assert desk.look(rule, agent) == Done("nothing")
    assert len(rows(desk.uow, dead_letters)) == 1


def test_looking_again_changes_nothing(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    desk.look(rule, agent)

    assert desk.look(rule, agent) == Done("nothing")
    assert len(desk.alerts()) == 1


def test_where_nothing_matched_there_is_nothing_to_do(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)

    assert desk.look(rule, agent) == Skipped("nothing matched")
    remove_rule(desk.uow, rule)
    assert desk.look(rule, agent) == Skipped("no such rule")
    assert desk.alerts() == []


def test_matches_within_the_cooldown_are_gathered_and_go_out_as_one_digest_with_the_worst(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow, to=[add_endpoint(desk.uow)]), agent_of(desk.uow)
    desk.match(rule, agent, 60)
    desk.look(rule, agent)
    desk.match(rule, agent, *range(30, 0, -2), None)
    desk.clock.advance(COOLDOWN_S - 1)

    assert desk.look(rule, agent) == Done("nothing")
    assert (len(desk.alerts()), desk.incident().gathered) == (1, 16)

    desk.clock.advance(1)
    assert desk.look(rule, agent) == Done("digest")

    _, digest = desk.alerts()
    data = body(digest)["data"]
    assert digest.event == "incident.updated"
    assert data["counts"] == {"matches": 16, "listed": 10}
    assert data["incident"]["match_count"] == 17
    assert [case["overall"] for case in data["worst"]] == list(range(2, 22, 2))
    assert (desk.incident().gathered, len(desk.deliveries())) == (0, 2)
    told = [row.alert_id for row in rows(desk.uow, alert_matches)]
    assert None not in told
    assert sorted(told.count(alert.id) for alert in desk.alerts()) == [1, 16]


def test_an_incident_that_nothing_matches_any_more_ends_and_is_told(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow, to=[add_endpoint(desk.uow)]), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    desk.look(rule, agent)
    desk.clock.advance(COOLDOWN_S + 1)

    assert desk.look(rule, agent) == Done("resolved")

    assert [alert.event for alert in desk.alerts()] == ["evaluation.failed", "incident.resolved"]
    assert (desk.incident().state, desk.incident().match_count) == ("resolved", 1)
    assert desk.look(rule, agent) == Skipped("nothing matched")
    assert len(desk.deliveries()) == 2


def test_a_match_after_the_end_opens_another_incident(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    desk.look(rule, agent)
    desk.clock.advance(COOLDOWN_S + 1)
    desk.look(rule, agent)
    desk.match(rule, agent, 30)

    assert desk.look(rule, agent) == Done("opened")
    assert len(desk.alerts()) == 3


def test_each_agent_has_incidents_of_its_own(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    desk.match(rule, None, 40)

    assert desk.look(rule, agent) == Done("opened")
    assert desk.look(rule, None) == Done("opened")
    assert len({alert.incident_id for alert in desk.alerts()}) == 2


def test_two_at_once_fold_each_match_once(desk: Desk) -> None:
    endpoint, agent = add_endpoint(desk.uow), agent_of(desk.uow)
    for round_ in range(10):
        rule = add_rule(desk.uow, name=f"rule {round_}", to=[endpoint])
        desk.match(rule, agent, 40, 30, 20)
        outcomes = _at_once(desk, rule, agent)

        assert sum(outcome == Done("opened") for outcome in outcomes) == 1
        mine = [alert for alert in desk.alerts() if alert.rule_id == rule.id]
        assert [body(alert)["data"]["counts"]["matches"] for alert in mine] == [3]

        desk.clock.advance(COOLDOWN_S)
        desk.match(rule, agent, 10, 5)
        assert sum(outcome == Done("digest") for outcome in _at_once(desk, rule, agent)) == 1
    assert len(desk.deliveries()) == 20
    assert all(row.alert_id is not None for row in rows(desk.uow, alert_matches))


def _at_once(desk: Desk, rule: AlertRule, agent: uuid.UUID) -> list[Outcome]:
    barrier = threading.Barrier(4)
    outcomes: list[Outcome] = []

    def look() -> None:
        barrier.wait()
        outcomes.append(desk.look(rule, agent))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    return outcomes


def test_a_flood_is_folded_in_steps_and_counted_whole(desk: Desk, outbox: Outbox) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.match(rule, agent, *range(6))
    outbox.sent.clear()

    in_steps = replace(desk.raising, at_once=4)
    assert raise_alerts(rule_id=rule.id, agent_id=agent, raising=in_steps) == Done("opened")
    assert outbox.sent == [messages.raise_alerts(rule.id, agent)]
    assert raise_alerts(rule_id=rule.id, agent_id=agent, raising=in_steps) == Done("nothing")
    assert (desk.incident().match_count, desk.incident().gathered) == (6, 2)


def test_the_sweep_finds_lost_nudges_due_digests_and_ends(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.clock.advance(-10)
    desk.match(rule, agent, 40)
    desk.clock.advance(10)

    def sweep() -> int:
        return raise_due_alerts(raising=desk.raising, unfolded_for_s=3)

    assert sweep() == 1
    assert sweep() == 0
    desk.match(rule, agent, 30, 20)
    desk.look(rule, agent)
    assert sweep() == 0
    desk.clock.advance(COOLDOWN_S)
    assert sweep() == 1
    desk.clock.advance(COOLDOWN_S)
    assert sweep() == 1
    assert [alert.event for alert in desk.alerts()] == ["evaluation.failed", "incident.updated", "incident.resolved"]
    assert sweep() == 0


@dataclass
class Faults:
    """Keeps what went wrong. Implements the port `LogContext`."""

    seen: list[tuple[str, str]] = field(default_factory=list)

    def bind(self, **ids: str | int) -> None:
        assert ids

    def fault(self, error: Exception, **ids: str | int) -> None:
        self.seen.append((type(error).__name__, str(ids["rule_id"])))


@dataclass
class Stumbling:
    """Begins transactions; some of them can't begin. The first one asks what is to be looked at."""

    uow: UnitsOfWork
    errors: dict[int, Exception]
    begun: int = 0

    def __call__(self) -> PostgresUnitOfWork:
        self.begun += 1
        if self.begun in self.errors:
            raise self.errors[self.begun]
        return self.uow()


def five_wait(desk: Desk) -> set[uuid.UUID]:
    """Five rules that something matched, whose nudges were lost."""
    agent = agent_of(desk.uow)
    rules = [add_rule(desk.uow, name=f"rule {number}") for number in range(5)]
    desk.clock.advance(-10)
    for rule in rules:
        desk.match(rule, agent, 40)
    desk.clock.advance(10)
    return {rule.id for rule in rules}


@pytest.mark.parametrize("error", [ZeroDivisionError("secret text"), StoreUnavailable("its row is locked")])
def test_one_rule_that_can_not_be_looked_at_stops_nothing_behind_it(desk: Desk, error: Exception) -> None:
    waiting, faults = five_wait(desk), Faults()
    raising = replace(desk.raising, uow=Stumbling(desk.uow, {3: error}), context=faults)

    with pytest.raises(SomeFailed, match="1 of 5"):
        raise_due_alerts(raising=raising, unfolded_for_s=3)

    told = {alert.rule_id for alert in desk.alerts()}
    assert len(told) == 4
    assert faults.seen == [(type(error).__name__, str(rule)) for rule in waiting - told]


def test_a_database_that_is_away_ends_the_sweep(desk: Desk) -> None:
    five_wait(desk)
    away = StoreUnavailable("PostgreSQL can't be used right now")
    stumbling = Stumbling(desk.uow, {3: away, 4: away})

    with pytest.raises(StoreUnavailable):
        raise_due_alerts(raising=replace(desk.raising, uow=stumbling), unfolded_for_s=3)

    assert stumbling.begun == 4


def test_a_fresh_match_is_left_to_its_nudge(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.match(rule, agent, 40)

    assert raise_due_alerts(raising=desk.raising, unfolded_for_s=3) == 0
    assert desk.look(rule, agent) == Done("opened")


def test_a_rule_without_endpoints_still_raises_an_alert_that_can_be_listed(desk: Desk) -> None:
    rule, agent = add_rule(desk.uow, RuleKind.NEEDS_REVIEW), agent_of(desk.uow)
    desk.match(rule, agent, None)

    assert desk.look(rule, agent) == Done("opened")
    assert (len(desk.alerts()), desk.deliveries()) == (1, [])
    assert desk.alerts()[0].workspace_id == WORKSPACE
