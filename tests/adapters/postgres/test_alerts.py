"""Rules, matches, alerts and their end of life, on real PostgreSQL."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from qa_worker.adapters.postgres.alert_rules import RuleBook
from qa_worker.adapters.postgres.tables import (
    alert_matches,
    alert_rules,
    alerts,
    dead_letters,
    deliveries,
    delivery_attempts,
    incidents,
)
from qa_worker.application.alerting import KnownRule, NewAlert
from qa_worker.application.forget_old_alerts import forget_old_alerts
from qa_worker.domain.alert import AlertEvent
from qa_worker.domain.alert_rule import AlertSeverity, RuleKind
from qa_worker.domain.call import workspace_id
from qa_worker.domain.errors import InvalidInput
from tests.alerting import WORKSPACE, Desk, add_calls, add_endpoint, add_rule, agent_of, remove_rule, rows
from tests.conftest import Outbox, UnitsOfWork
from tests.fakes import FrozenClock

pytestmark = pytest.mark.services

NOW = datetime.now(UTC)


@pytest.fixture
def desk(uow: UnitsOfWork) -> Desk:
    """A workspace with an agent."""
    add_calls(uow, "call-1")
    return Desk(uow)


def count(uow: UnitsOfWork, table: Table) -> int:
    return len(rows(uow, table))


def raise_one(desk: Desk, *, old: timedelta = timedelta()) -> uuid.UUID:
    """An alert with one delivery, that old; the id of the delivery."""
    endpoint = add_endpoint(desk.uow, f"endpoint {uuid.uuid4()}")
    rule = add_rule(desk.uow, name=f"rule {uuid.uuid4()}", to=[endpoint])
    desk.clock.advance(-old.total_seconds())
    desk.match(rule, agent_of(desk.uow), 40)
    desk.look(rule, agent_of(desk.uow))
    desk.clock.advance(old.total_seconds())
    with desk.uow.engine.connect() as connection:
        found: uuid.UUID = connection.execute(
            select(deliveries.c.id).where(deliveries.c.endpoint_id == endpoint)
        ).scalar_one()
    return found


def settle(uow: UnitsOfWork, delivery_id: uuid.UUID, state: str) -> None:
    """The delivery ended, with one attempt."""
    with uow.engine.begin() as connection:
        delivered_at = NOW if state == "done" else None
        mine = update(deliveries).where(deliveries.c.id == delivery_id)
        connection.execute(mine.values(state=state, delivered_at=delivered_at))
        ended = {"started_at": NOW, "ended_at": NOW, "attempt": 1, "result": "dead"}
        connection.execute(insert(delivery_attempts).values(id=uuid.uuid4(), delivery_id=delivery_id, **ended))


def a_letter(uow: UnitsOfWork, delivery_id: uuid.UUID, **fields: Any) -> None:
    with uow.engine.begin() as connection:
        given = {"kind": "alert", "ref_id": delivery_id, "workspace_id": WORKSPACE, "died_at": NOW, **fields}
        connection.execute(insert(dead_letters).values(id=uuid.uuid4(), **given))


def test_a_rule_is_read_as_it_was_written(desk: Desk) -> None:
    one, two = add_endpoint(desk.uow, "one"), add_endpoint(desk.uow, "two", state="disabled")
    rule = add_rule(
        desk.uow,
        RuleKind.FAILURE_RATE,
        to=[one, two, one],
        severity=AlertSeverity.CRITICAL,
        agent_id=agent_of(desk.uow),
        baseline=True,
        rise=0.25,
        window_s=3600,
        min_samples=20,
    )

    with desk.uow() as work:
        known = work.alert_rules.get(rule.id)
        assert known is not None
        assert work.alert_rules.conditions() == [known]
        assert work.alert_rules.all_of(WORKSPACE) == [known]
        assert work.alert_rules.all_of(workspace_id("other")) == []
    assert replace(known, endpoints=()) == KnownRule(rule, "w")
    assert set(known.endpoints) == {one, two}


def test_what_is_another_workspaces_is_as_unknown_as_what_does_not_exist(desk: Desk) -> None:
    add_calls(desk.uow, "call-2", workspace="other")
    other = workspace_id("other")
    theirs = add_endpoint(desk.uow, workspace=other)

    for chosen in (theirs, uuid.uuid4()):
        with pytest.raises(InvalidInput, match="endpoints: the workspace has no such endpoint"):
            add_rule(desk.uow, to=[chosen])
    for agent in (agent_of(desk.uow, other), uuid.uuid4()):
        with pytest.raises(InvalidInput, match="agent: the workspace has no such agent"):
            add_rule(desk.uow, agent_id=agent)
    assert count(desk.uow, alert_rules) == 0


def test_a_name_is_taken_once_in_a_workspace(desk: Desk) -> None:
    add_rule(desk.uow, name="failed")

    with pytest.raises(InvalidInput, match="name: there is a rule 'failed' already"):
        add_rule(desk.uow, name="failed")


def test_a_removed_rule_takes_its_incidents_along_and_leaves_its_alerts(desk: Desk) -> None:
    raise_one(desk)
    with desk.uow() as work:
        (known,) = work.alert_rules.all_of(WORKSPACE)
        assert work.alert_rules.remove(WORKSPACE, known.rule.name)
        assert not work.alert_rules.remove(WORKSPACE, known.rule.name)
        work.commit()

    assert (count(desk.uow, incidents), count(desk.uow, alert_matches)) == (0, 0)
    assert [(alert.rule_id, alert.incident_id) for alert in desk.alerts()] == [(None, None)]
    assert len(desk.deliveries()) == 1


def test_rules_are_read_once_for_all_workspaces_and_kept_for_some_seconds(desk: Desk) -> None:
    seconds = [0.0]
    book = RuleBook(fresh_s=5, now=lambda: seconds[0])
    rule = add_rule(desk.uow)
    statements: list[str] = []

    def looked_up(workspace: str) -> int:
        with desk.uow.engine.connect() as connection:
            return len(book.of(connection, workspace_id(workspace)))

    def note(*given: Any) -> None:
        statements.append(given[2])

    event.listen(desk.uow.engine, "before_cursor_execute", note)
    found = [looked_up(name) for name in ("w", "nobody", "w")]
    event.remove(desk.uow.engine, "before_cursor_execute", note)
    assert found == [1, 0, 1]
    assert len([one for one in statements if "alert_rules" in one]) == 1

    remove_rule(desk.uow, rule)
    seconds[0] = 4.9
    assert looked_up("w") == 1
    seconds[0] = 5.0
    assert looked_up("w") == 0


def test_rules_that_could_not_be_read_are_not_taken_for_none(desk: Desk) -> None:
    """A result is written again at once when the database failed: then its rules have to be there."""
    rule, book = add_rule(desk.uow), RuleBook(now=lambda: 0.0)

    read_in_vain(book, desk.uow)

    with desk.uow.engine.connect() as connection:
        assert [known.id for known in book.of(connection, WORKSPACE)] == [rule.id]


def test_rules_that_are_known_hold_on_where_reading_them_again_fails(desk: Desk) -> None:
    seconds = [0.0]
    rule, book = add_rule(desk.uow), RuleBook(fresh_s=5, now=lambda: seconds[0])
    with desk.uow.engine.connect() as connection:
        assert book.of(connection, WORKSPACE)
    remove_rule(desk.uow, rule)
    seconds[0] = 5.0

    read_in_vain(book, desk.uow)

    with desk.uow.engine.connect() as connection:
        assert [known.id for known in book.of(connection, WORKSPACE)] == [rule.id]
        seconds[0] = 10.0
        assert book.of(connection, WORKSPACE) == ()


def test_whoever_needs_the_rules_while_they_are_read_first_waits_for_them(desk: Desk) -> None:
    rule, book = add_rule(desk.uow), RuleBook()
    found: list[list[uuid.UUID]] = []

    def look() -> None:
        with desk.uow.engine.connect() as connection:
            found.append([known.id for known in book.of(connection, WORKSPACE)])

    threads = [threading.Thread(target=look) for _ in range(3)]
    with desk.uow.engine.begin() as holder:
        holder.execute(text("LOCK TABLE alert_rules IN ACCESS EXCLUSIVE MODE"))
        threads[0].start()
        wait_for_the_lock(desk.uow)
        for thread in threads[1:]:
            thread.start()
        threads[1].join(timeout=0.2)
        assert found == []
    for thread in threads:
        thread.join()

    assert found == [[rule.id]] * 3


def read_in_vain(book: RuleBook, uow: UnitsOfWork) -> None:
    """The rules are read in a transaction in which everything is refused by now."""
    with uow.engine.connect() as connection:
        for spoilt in (lambda: connection.execute(text("SELECT 1 / 0")), lambda: book.of(connection, WORKSPACE)):
            with pytest.raises(DBAPIError):
                spoilt()


def wait_for_the_lock(uow: UnitsOfWork) -> None:
    """Until somebody waits for a lock on the rules."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'alert_rules'::regclass")
    for _ in range(500):
        with uow.engine.connect() as connection:
            if connection.execute(waiting).scalar_one():
                return
        time.sleep(0.01)
    pytest.fail("nobody waits")


def test_within_a_cooldown_nobody_is_nudged_again_and_again() -> None:
    seconds = [0.0]
    book = RuleBook(now=lambda: seconds[0])
    concern, other = (uuid.uuid4(), None), (uuid.uuid4(), None)

    assert book.worth_a_nudge(concern, cooldown_s=900)
    assert not book.worth_a_nudge(concern, cooldown_s=900)
    assert book.worth_a_nudge(other, cooldown_s=900)
    assert [book.worth_a_nudge(concern, cooldown_s=0) for _ in range(2)] == [True, True]
    seconds[0] = 5.0
    assert book.worth_a_nudge(concern, cooldown_s=900)


def test_appending_waits_for_nobody_who_holds_the_incident(desk: Desk) -> None:
    """Recording an evaluation must not stand behind somebody who raises alerts."""
    rule, agent = add_rule(desk.uow), agent_of(desk.uow)
    desk.match(rule, agent, 40)
    with desk.uow() as work:
        held = work.incidents.hold(rule, agent, desk.clock.now())
        assert held is not None
        assert work.incidents.take(held, (rule.id, agent), limit=10) == 1

        thread = threading.Thread(target=desk.match, args=(rule, agent, 30))
        thread.start()
        thread.join(timeout=5)
        assert not thread.is_alive()
        work.commit()
    assert count(desk.uow, alert_matches) == 2


def test_an_alert_that_is_stored_gets_no_second_delivery(desk: Desk, outbox: Outbox) -> None:
    endpoint = add_endpoint(desk.uow)
    alert = NewAlert(uuid.uuid4(), WORKSPACE, AlertEvent.TEST, AlertSeverity.INFO, "a test", b"{}", NOW)

    for expected in (1, 0):
        with desk.uow() as work:
            assert len(work.alerts.raise_alert(alert, [endpoint], max_attempts=3)) == expected
            work.commit()

    assert (len(desk.alerts()), len(desk.deliveries())) == (1, 1)
    assert bytes(desk.alerts()[0].body) == b"{}"
    assert outbox.sent[1:] == []


def test_an_alert_goes_to_no_endpoint_of_another_workspace(desk: Desk) -> None:
    add_calls(desk.uow, "call-2", workspace="other")
    theirs = add_endpoint(desk.uow, workspace=workspace_id("other"))
    alert = NewAlert(uuid.uuid4(), WORKSPACE, AlertEvent.TEST, AlertSeverity.INFO, "a test", b"{}", NOW)

    with desk.uow() as work:
        assert work.alerts.raise_alert(alert, [theirs], max_attempts=3) == []
        work.commit()


YEAR = timedelta(days=365)


def forget(desk: Desk) -> int:
    return forget_old_alerts(uow=desk.uow, clock=FrozenClock(desk.clock.now()), keep_days=90)


def test_old_alerts_go_with_all_that_hangs_on_them(desk: Desk) -> None:
    settle(desk.uow, raise_one(desk, old=YEAR), "done")
    with desk.uow.engine.begin() as connection:
        resolved = {"state": "resolved", "resolved_at": desk.clock.now() - YEAR, "gathered": 0}
        connection.execute(update(incidents).values(resolved))
    settle(desk.uow, raise_one(desk), "done")

    assert forget(desk) == 2

    kept = (alerts, deliveries, delivery_attempts, alert_matches, incidents)
    assert [count(desk.uow, table) for table in kept] == [1, 1, 1, 1, 1]
    assert desk.alerts()[0].created_at == desk.clock.now()
    assert forget(desk) == 0


@pytest.mark.parametrize("state", ["pending", "queued"])
def test_an_unfinished_delivery_is_kept_however_old(desk: Desk, state: str) -> None:
    delivery = raise_one(desk, old=YEAR)
    with desk.uow.engine.begin() as connection:
        connection.execute(update(deliveries).where(deliveries.c.id == delivery).values(state=state))

    assert forget(desk) == 0
    assert len(desk.alerts()) == 1


def test_an_open_dead_letter_keeps_its_alert_until_it_is_settled(desk: Desk) -> None:
    delivery = raise_one(desk, old=YEAR)
    settle(desk.uow, delivery, "dead")
    a_letter(desk.uow, delivery, died_at=NOW - YEAR)
    assert forget(desk) == 0

    with desk.uow.engine.begin() as connection:
        connection.execute(update(dead_letters).values(state="discarded", settled_at=NOW - YEAR))

    assert forget(desk) == 2
    assert (desk.alerts(), count(desk.uow, dead_letters)) == ([], 0)


def test_a_replay_goes_with_what_it_replays(desk: Desk) -> None:
    delivery = raise_one(desk, old=YEAR)
    settle(desk.uow, delivery, "dead")
    with desk.uow.engine.begin() as connection:
        original = connection.execute(select(deliveries)).one()
        again = {**original._mapping, "id": uuid.uuid4(), "replay_of": delivery, "state": "done", "delivered_at": NOW}
        connection.execute(insert(deliveries).values(again))

    assert forget(desk) == 1
    assert desk.deliveries() == []


def test_open_incidents_are_never_forgotten(desk: Desk) -> None:
    settle(desk.uow, raise_one(desk, old=YEAR), "done")

    forget(desk)

    assert (desk.alerts(), desk.incident().state) == ([], "open")


def test_forgetting_goes_in_small_steps_the_oldest_first(desk: Desk) -> None:
    for days in (200, 100, 300):
        settle(desk.uow, raise_one(desk, old=timedelta(days=days)), "done")

    with desk.uow() as work:
        assert work.alerts.forget(desk.clock.now(), batch=1) == 1
        work.commit()

    ages = [(desk.clock.now() - alert.created_at).days for alert in desk.alerts()]
    assert ages == [200, 100]


def test_there_is_one_open_incident_for_a_rule_and_what_it_concerns(desk: Desk) -> None:
    rule = add_rule(desk.uow)
    times = {"opened_at": NOW, "last_match_at": NOW, "quiet_until": NOW}

    def begin() -> None:
        with desk.uow.engine.begin() as connection:
            values = {"id": uuid.uuid4(), "rule_id": rule.id, "workspace_id": WORKSPACE, **times}
            connection.execute(insert(incidents).values(values))

    begin()
    with pytest.raises(IntegrityError, match="uq_incidents_open"):
        begin()
