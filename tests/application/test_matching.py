"""From the end of an evaluation to alerts and deliveries: through `evaluate_call`, on real PostgreSQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog
from sqlalchemy import func, update

from qa_worker import messages
from qa_worker.adapters.postgres.alert_rules import RuleBook
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import alert_matches, alert_rules, evaluations
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.application._grading import Tools
from qa_worker.application._matching import note_event
from qa_worker.application.evaluate_call import evaluate_call
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.application.raise_alerts import raise_alerts
from qa_worker.application.rescue_stalled import rescue_stalled
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.alert_rule import Event, RuleKind
from qa_worker.domain.call import workspace_id
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Outcome
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind, Severity
from qa_worker.messages import Message
from tests.alerting import WORKSPACE, Desk, add_calls, add_endpoint, add_rule, agent_of, remove_rule, rows
from tests.builders import a_finding, a_grading, an_assessment
from tests.conftest import Outbox, UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases, ScriptedJudge, Step

pytestmark = pytest.mark.services

FAILED = an_assessment(a_finding("compliance", Severity.CRITICAL), level=1)
REJECTED = Failure(FailureKind.REJECTED, "http_400", "The request is not valid.")


@pytest.fixture
def call(uow: UnitsOfWork) -> Accepted:
    """A call that waits for its verdict."""
    (accepted,) = add_calls(uow, "call-1")
    return accepted


def grade(uow: UnitsOfWork, call: Accepted, step: Step, *, units: UnitOfWorkFactory | None = None) -> Outcome:
    """Grade it with this answer of the judge."""
    factory = units or uow
    tools = Tools(
        uow=factory,
        records=DirectRecords(factory),
        leases=NoLeases(),
        context=NoContext(),
        judges={JudgeKind.CLAUDE: ScriptedJudge([step], engine=uow.engine)},
        clock=FrozenClock(),
        jitter=FixedJitter(),
        policy=RetryPolicy(schedule_s=(10,), max_attempts=3, unreadable_attempts=1),
        grading=a_grading(),
        lease_s=60,
    )
    return evaluate_call(call_id=call.call_id, evaluation_id=call.evaluation_id, tools=tools)


def matched(uow: UnitsOfWork) -> list[tuple[uuid.UUID, str]]:
    """(rule, cause) of every match."""
    return [(row.rule_id, row.cause) for row in rows(uow, alert_matches)]


def test_a_failed_call_becomes_an_alert_with_its_quotes_and_a_delivery(
    uow: UnitsOfWork, outbox: Outbox, call: Accepted
) -> None:
    rule = add_rule(uow, to=[add_endpoint(uow)])
    agent = agent_of(uow)
    outbox.sent.clear()

    assert grade(uow, call, FAILED) == Done("fail")
    assert outbox.sent == [messages.raise_alerts(rule.id, agent)]
    desk = Desk(uow)
    assert desk.look(rule, agent) == Done("opened")

    (alert,) = desk.alerts()
    data = json.loads(alert.body)["data"]
    assert (alert.evaluation_id, alert.call_id) == (call.evaluation_id, call.call_id)
    assert (data["call"]["ref"], data["verdict"], data["overall"]) == ("call-1", "fail", 0)
    assert [reason["quote"] for reason in data["reasons"]] == ["Your appointment is on Friday"]
    assert [score["score"] for score in data["scores"]] == [0, 0, 0, 0]
    assert data["links"]["call"].endswith(f"/calls/{call.call_id}")
    assert len(desk.deliveries()) == 1


def test_a_passed_call_matches_nothing_and_nudges_nobody(uow: UnitsOfWork, outbox: Outbox, call: Accepted) -> None:
    for kind in (RuleKind.EVALUATION_FAILED, RuleKind.NEEDS_REVIEW, RuleKind.NOT_EVALUATED):
        add_rule(uow, kind)
    outbox.sent.clear()

    assert grade(uow, call, an_assessment()) == Done("pass")
    assert (matched(uow), outbox.sent) == ([], [])


def test_rules_of_another_workspace_or_agent_see_nothing(uow: UnitsOfWork, call: Accepted) -> None:
    other = workspace_id("other")
    add_calls(uow, "call-2", workspace="other")
    add_rule(uow, workspace=other)
    add_rule(uow, workspace=other, name="of an agent", agent_id=agent_of(uow, other))

    grade(uow, call, FAILED)

    assert matched(uow) == []


def test_one_evaluation_matches_a_rule_once_however_often_it_ends(uow: UnitsOfWork, call: Accepted) -> None:
    rule = add_rule(uow, RuleKind.NOT_EVALUATED)
    grade(uow, call, REJECTED)
    with uow() as work:
        assert work.evaluations.revive([call.call_id])
        work.commit()

    assert grade(uow, call, REJECTED) == Dead("http_400")

    assert matched(uow) == [(rule.id, str(call.evaluation_id))]


def test_a_floor_is_looked_at_for_each_call(uow: UnitsOfWork, call: Accepted) -> None:
    low = add_rule(uow, RuleKind.SCORE_BELOW, name="low", threshold=80)
    add_rule(uow, RuleKind.SCORE_BELOW, name="very low", threshold=70)

    grade(uow, call, an_assessment(a_finding("tool_usage"), level=4))

    assert [(row.rule_id, row.overall) for row in rows(uow, alert_matches)] == [(low.id, 75)]


def test_a_call_that_is_given_up_on_matches_its_own_kind_of_rule(
    uow: UnitsOfWork, outbox: Outbox, call: Accepted
) -> None:
    rule = add_rule(uow, RuleKind.NOT_EVALUATED)
    add_rule(uow)
    outbox.sent.clear()

    assert grade(uow, call, REJECTED) == Dead("http_400")

    (match,) = rows(uow, alert_matches)
    assert (match.rule_id, match.detail, match.overall) == (rule.id, "not evaluated: http_400", None)
    assert outbox.sent == [messages.raise_alerts(rule.id, agent_of(uow))]


def test_a_call_whose_workers_died_matches_too(uow: UnitsOfWork, call: Accepted) -> None:
    rule = add_rule(uow, RuleKind.NOT_EVALUATED)
    with uow() as work:
        assert work.evaluations.claim([call.evaluation_id], lease_s=60)
        work.commit()
    with uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(attempt=3, lease_until=func.now() - timedelta(seconds=1)))

    found = rescue_stalled(uow=uow, grading=a_grading(), resend_after_s=60, in_flight_limit=9, waiting=lambda: 0)

    assert found.buried == 1
    assert matched(uow) == [(rule.id, str(call.evaluation_id))]


def test_an_unreadable_answer_needs_review_and_matches_that(uow: UnitsOfWork, call: Accepted) -> None:
    rule = add_rule(uow, RuleKind.NEEDS_REVIEW)

    grade(uow, call, Failure(FailureKind.UNREADABLE, "not_json", "No JSON."))

    assert matched(uow) == [(rule.id, str(call.evaluation_id))]


def test_a_run_that_failed_matches_rules_about_runs(uow: UnitsOfWork, outbox: Outbox, call: Accepted) -> None:
    rule = add_rule(uow, RuleKind.RUN_FAILED)
    event = Event(RuleKind.RUN_FAILED, "run/1", agent_of(uow), FrozenClock().now(), "the caller hung up")
    outbox.sent.clear()

    with uow() as work:
        note_event(work, WORKSPACE, event)
        work.commit()

    assert matched(uow) == [(rule.id, "run/1")]
    assert outbox.sent == [messages.raise_alerts(rule.id, event.agent_id)]
    assert call.created


def test_a_broker_that_is_away_costs_no_verdict_and_no_match(uow: UnitsOfWork, call: Accepted) -> None:
    rule = add_rule(uow)

    def away(batch: Sequence[Message]) -> None:
        raise StoreUnavailable(f"{len(batch)} messages could not be sent")

    def units() -> PostgresUnitOfWork:
        return PostgresUnitOfWork(uow.engine, send=away, prompt_version="test")

    assert grade(uow, call, FAILED, units=units) == Done("fail")
    assert matched(uow) == [(rule.id, str(call.evaluation_id))]


def test_a_rule_that_was_removed_a_moment_ago_breaks_no_result(uow: UnitsOfWork, call: Accepted) -> None:
    """A process knows rules for some seconds after they went."""
    rule, book = add_rule(uow), RuleBook(fresh_s=60)

    def units() -> PostgresUnitOfWork:
        return PostgresUnitOfWork(uow.engine, send=lambda _: None, prompt_version="test", book=book)

    with units() as work:
        assert [known.id for known in work.alert_rules.of_workspace(WORKSPACE)] == [rule.id]
    remove_rule(uow, rule)

    assert grade(uow, call, FAILED, units=units) == Done("fail")
    assert matched(uow) == []


def test_a_rule_of_a_kind_that_nobody_knows_breaks_no_result_and_hides_no_other_rule(
    uow: UnitsOfWork, call: Accepted
) -> None:
    """A later version wrote it, and was rolled back."""
    strange = add_rule(uow, RuleKind.NEEDS_REVIEW)
    with uow.engine.begin() as connection:
        connection.execute(update(alert_rules).where(alert_rules.c.id == strange.id).values(kind="from_the_future"))
    rule = add_rule(uow)

    with structlog.testing.capture_logs() as logged:
        assert grade(uow, call, FAILED) == Done("fail")

    assert matched(uow) == [(rule.id, str(call.evaluation_id))]
    assert {(line["event"], line["rule_id"]) for line in logged} == {("rule_of_unknown_kind", str(strange.id))}
    with uow() as work:
        assert work.alert_rules.get(strange.id) is None
        assert [known.rule for known in work.alert_rules.all_of(WORKSPACE)] == [rule]


def test_a_switched_off_rule_still_tells_what_it_had_matched(uow: UnitsOfWork, call: Accepted) -> None:
    rule = add_rule(uow)
    grade(uow, call, FAILED)
    with uow.engine.begin() as connection:
        connection.execute(update(alert_rules).values(enabled=False))

    raising = replace(Desk(uow).raising, public_url="")
    assert raise_alerts(rule_id=rule.id, agent_id=agent_of(uow), raising=raising) == Done("opened")
