"""Looking at what lasts, on real PostgreSQL: one match when it begins, an incident that goes on, an end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, text, update

from qa_worker import messages
from qa_worker.adapters.postgres.tables import alert_matches, batches, dead_letters, evaluations
from qa_worker.adapters.postgres.vitals import PostgresVitals
from qa_worker.application.alerting import SpentShare
from qa_worker.application.raise_alerts import raise_due_alerts
from qa_worker.application.watch_health import Watching, watch_health
from qa_worker.domain.alert_rule import RuleKind
from qa_worker.domain.call import workspace_id
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.incident import CALM_S
from qa_worker.domain.outcome import Done
from tests.alerting import WORKSPACE, Desk, add_calls, add_rule, agent_of, rows, set_graded
from tests.conftest import Outbox, UnitsOfWork
from tests.letters import add_letter

pytestmark = pytest.mark.services

HOUR = timedelta(hours=1)
LEVEL: dict[str, Any] = {"threshold": 0.2, "window_s": 3600, "min_samples": 5}


@dataclass
class Post:
    """Somebody who looks at the system, at a time that stands still."""

    uow: UnitsOfWork
    desk: Desk
    breaker: Callable[[], bool | None] = lambda: None
    spent: Sequence[SpentShare] = ()
    failed: list[RuleKind] = field(default_factory=list)

    def look(self) -> int:
        return watch_health(
            watching=Watching(
                uow=self.uow,
                clock=self.desk.clock,
                vitals=PostgresVitals(self.uow.engine),
                breaker_open=self.breaker,
                spent_shares=lambda: self.spent,
                failed=lambda kind, _error: self.failed.append(kind),
            )
        )

    def sweep(self) -> None:
        raise_due_alerts(raising=self.desk.raising, unfolded_for_s=-1)

    def details(self) -> list[str]:
        return [row.detail for row in rows(self.uow, alert_matches)]

    def graded(self, *verdicts: str, ago: timedelta = timedelta(minutes=5), name: str = "call") -> None:
        """Calls that got these verdicts so long ago."""
        at = self.desk.clock.now() - ago
        refs = [f"{name}-{number}" for number in range(len(verdicts))]
        for accepted, verdict in zip(add_calls(self.uow, *refs), verdicts, strict=True):
            set_graded(self.uow, accepted, verdict=verdict, at=at)


@pytest.fixture
def post(uow: UnitsOfWork) -> Post:
    """Nothing is wrong yet."""
    return Post(uow, Desk(uow))


def test_a_rate_over_its_level_is_one_match_for_the_agent(post: Post, outbox: Outbox) -> None:
    post.graded("fail", "fail", "pass", "pass", "pass", "needs_review", "not_evaluated")
    rule = add_rule(post.uow, RuleKind.FAILURE_RATE, **LEVEL)
    outbox.sent.clear()

    assert post.look() == 1

    assert post.details() == [
        "2 of 5 judged calls failed (40.0%) in 3600 s; the limit is 20.0%; 1 need review and 1 were not evaluated"
    ]
    assert outbox.sent == [messages.raise_alerts(rule.id, agent_of(post.uow))]


def test_while_it_lasts_nothing_more_is_matched_and_then_it_ends(post: Post) -> None:
    post.graded(*["fail"] * 5)
    rule = add_rule(post.uow, RuleKind.FAILURE_RATE, **LEVEL)
    agent = agent_of(post.uow)
    post.look()
    assert post.look() == 1
    assert post.desk.look(rule, agent) == Done("opened")
    for _ in range(12):
        post.desk.clock.advance(CALM_S)
        post.look()
        post.sweep()

    assert len(post.details()) == 1
    assert [alert.event for alert in post.desk.alerts()] == ["failure_rate.exceeded"]

    post.desk.clock.advance(900)
    assert post.look() == 0
    post.sweep()
    assert [alert.event for alert in post.desk.alerts()] == ["failure_rate.exceeded", "incident.resolved"]


def test_too_few_samples_are_no_rate(post: Post) -> None:
    post.graded(*["fail"] * 4, *["needs_review"] * 50)
    add_rule(post.uow, RuleKind.FAILURE_RATE, **LEVEL)

    assert post.look() == 0


def test_what_ended_before_the_window_is_not_in_it(post: Post) -> None:
    post.graded(*["fail"] * 9, ago=timedelta(minutes=61))
    add_rule(post.uow, RuleKind.FAILURE_RATE, **LEVEL)

    assert post.look() == 0


def test_only_the_current_evaluation_of_a_call_is_counted(post: Post) -> None:
    post.graded(*["fail"] * 9)
    with post.uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(is_current=False))
    add_rule(post.uow, RuleKind.FAILURE_RATE, **LEVEL)

    assert post.look() == 0


def test_an_agent_is_compared_with_its_own_history(post: Post) -> None:
    post.graded(*["fail"] * 4, *["pass"] * 6)
    rise: dict[str, Any] = {"baseline": True, "rise": 0.5, "window_s": 3600, "min_samples": 5}
    add_rule(post.uow, RuleKind.FAILURE_RATE, **rise)
    assert post.look() == 0

    post.graded("fail", *["pass"] * 9, ago=3 * HOUR, name="before")

    assert post.look() == 1
    assert "usual are 10.0% (1 of 10)" in post.details()[0]


def test_what_was_usual_before_the_history_is_forgotten(post: Post) -> None:
    post.graded(*["fail"] * 4, *["pass"] * 6)
    post.graded(*["pass"] * 10, ago=9 * HOUR, name="before")
    add_rule(post.uow, RuleKind.FAILURE_RATE, baseline=True, rise=0.5, window_s=3600, min_samples=5)

    assert post.look() == 0


def test_a_rule_of_one_agent_counts_that_agent(post: Post) -> None:
    post.graded(*["fail"] * 9)
    with post.uow.engine.begin() as connection:
        other = uuid.uuid4()
        statement = text("INSERT INTO agents (id, workspace_id, ref) VALUES (:id, :workspace, 'other')")
        connection.execute(statement, {"id": other, "workspace": WORKSPACE})
    add_rule(post.uow, RuleKind.FAILURE_RATE, agent_id=other, **LEVEL)

    assert post.look() == 0


@pytest.mark.parametrize(("state", "holds"), [(True, 1), (False, 0), (None, 0)])
def test_an_open_breaker_is_told(post: Post, state: bool | None, holds: int) -> None:  # noqa: FBT001 - a table
    add_calls(post.uow, "call-1")
    add_rule(post.uow, RuleKind.BREAKER_OPEN)
    post.breaker = lambda: state

    assert post.look() == holds
    assert len(post.details()) == holds


@pytest.mark.parametrize(
    ("spent", "found"),
    [
        (SpentShare("w", 0.79), []),
        (SpentShare("w", 0.8), ["80% of the workspace's budget of today is spent; the limit is 80%"]),
        (SpentShare("other", 3), []),
        (SpentShare("", 1), ["100% of the common budget of today is spent; the limit is 80%"]),
    ],
)
def test_a_budget_is_told_to_those_whom_it_stops(post: Post, spent: SpentShare, found: list[str]) -> None:
    add_calls(post.uow, "call-1")
    add_rule(post.uow, RuleKind.BUDGET_REACHED, threshold=0.8)
    post.spent = [spent]

    post.look()

    assert post.details() == found


def _letters(post: Post, *ages: timedelta, workspace: str = "w", state: str = "open") -> None:
    now = post.desk.clock.now()
    with post.uow.engine.begin() as connection:
        for age in ages:
            connection.execute(
                insert(dead_letters).values(
                    id=uuid.uuid4(),
                    kind="alert",
                    ref_id=uuid.uuid4(),
                    workspace_id=workspace_id(workspace),
                    died_at=now - age,
                    state=state,
                    settled_at=None if state == "open" else now,
                )
            )


@pytest.mark.parametrize(("kind", "code"), [("spend_cap", "http_429"), ("held", "spend_cap")])
def test_the_providers_own_spend_limit_is_told(post: Post, kind: str, code: str) -> None:
    add_calls(post.uow, "waits")
    add_rule(post.uow, RuleKind.BUDGET_REACHED, threshold=0.9)
    assert post.look() == 0

    with post.uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(state="pending", error_kind=kind, error_code=code))

    assert post.look() == 1
    assert post.details() == ["the provider's own spend limit is reached: calls wait until it is raised"]


def test_a_batch_that_the_providers_spend_limit_stops_is_told(post: Post) -> None:
    add_calls(post.uow, "waits")
    add_rule(post.uow, RuleKind.BUDGET_REACHED, threshold=0.9)
    with post.uow.engine.begin() as connection:
        connection.execute(
            insert(batches).values(id=uuid.uuid4(), model="m", state="preparing", error_kind="spend_cap")
        )

    assert post.look() == 1


def test_new_dead_letters_of_the_workspace_are_told(post: Post) -> None:
    add_calls(post.uow, "call-1")
    add_calls(post.uow, "call-2", workspace="other")
    add_rule(post.uow, RuleKind.DEAD_LETTERS_GROWING, threshold=2, window_s=3600)
    _letters(post, HOUR / 2, 2 * HOUR, 3 * HOUR)
    _letters(post, HOUR / 2, HOUR / 2, workspace="other")
    _letters(post, HOUR / 2, state="discarded")
    assert post.look() == 0

    _letters(post, HOUR / 3)

    assert post.look() == 1
    assert post.details() == ["2 new dead letters in 3600 s; the limit is 2"]


def test_many_open_dead_letters_are_told_until_they_are_settled(post: Post) -> None:
    add_calls(post.uow, "call-1")
    add_calls(post.uow, "call-2", workspace="other")
    add_rule(post.uow, RuleKind.DEAD_LETTERS_DEPTH, threshold=3)
    _letters(post, 2 * HOUR, 9000 * HOUR)
    _letters(post, HOUR, workspace="other")
    _letters(post, HOUR, state="replayed")
    assert post.look() == 0

    # Of nobody: an unreadable message.
    add_letter(post.uow)

    assert post.look() == 1
    assert post.details() == ["3 dead letters are open; the limit is 3"]
    with post.uow.engine.begin() as connection:
        connection.execute(update(dead_letters).values(state="discarded", settled_at=post.desk.clock.now()))
    assert post.look() == 0


def test_an_old_dead_letter_is_told(post: Post) -> None:
    add_calls(post.uow, "call-1")
    add_rule(post.uow, RuleKind.DEAD_LETTERS_AGE, threshold=24 * 3600)
    assert post.look() == 0
    _letters(post, 3 * HOUR)
    _letters(post, 48 * HOUR, state="discarded")
    assert post.look() == 0

    with post.uow.engine.begin() as connection:
        old = func.now() - func.make_interval(0, 0, 0, 0, 25)
        connection.execute(update(dead_letters).where(dead_letters.c.state == "open").values(died_at=old))

    assert post.look() == 1
    (detail,) = post.details()
    assert detail.startswith("the oldest dead letter is open for 900")
    assert detail.endswith("the limit is 86400 s")


def test_a_call_that_waits_too_long_is_told_whatever_it_waits_for(post: Post) -> None:
    add_calls(post.uow, "call-1", "call-2")
    add_rule(post.uow, RuleKind.QUEUE_TOO_OLD, threshold=120)
    assert post.look() == 0

    with post.uow.engine.begin() as connection:
        parked = {"state": "pending", "not_before": post.desk.clock.now() + HOUR}
        connection.execute(update(evaluations).values(created_at=post.desk.clock.now() - HOUR, **parked))

    assert post.look() == 1
    assert post.details()[0].startswith("the oldest call waits 36")


def test_what_can_not_be_asked_does_not_hide_the_rest(post: Post) -> None:
    def away() -> bool:
        raise StoreUnavailable("Redis is away")

    post.graded(*["fail"] * 5)
    add_rule(post.uow, RuleKind.BREAKER_OPEN)
    add_rule(post.uow, RuleKind.FAILURE_RATE, **LEVEL)
    post.breaker = away

    assert post.look() == 1
    assert post.failed == [RuleKind.BREAKER_OPEN]


def test_of_two_who_look_at_once_one_does(post: Post) -> None:
    add_calls(post.uow, "call-1")
    add_rule(post.uow, RuleKind.BREAKER_OPEN)
    post.breaker = lambda: True
    with post.uow() as work:
        assert work.incidents.watch()
        assert post.look() == 0

    assert post.look() == 1


def test_without_rules_nothing_is_asked(post: Post) -> None:
    def never() -> bool:
        raise AssertionError("nobody wants to know")

    add_calls(post.uow, "call-1")
    add_rule(post.uow, RuleKind.BREAKER_OPEN, enabled=False)
    post.breaker = never

    assert post.look() == 0
