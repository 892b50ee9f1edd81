"""Daily budgets: counted from the attempts, for a workspace and for all of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, func, select, update

from qa_worker.adapters.postgres.budget import PostgresBudget
from qa_worker.adapters.postgres.tables import attempts, evaluations
from qa_worker.application.limits import Exceeded, Spending
from qa_worker.application.ports import AttemptRecord, Claimed
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.call import workspace_id
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.verdict import decide
from tests.builders import a_call, a_grading, a_rubric, a_transcript, an_assessment
from tests.conftest import UnitsOfWork

pytestmark = pytest.mark.services

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


def _budget(uow: UnitsOfWork, *, overall: int | None = None, each: int | None = None) -> PostgresBudget:
    return PostgresBudget(uow.engine, overall=overall, each_workspace=each, now=lambda: NOON)


def _spend(uow: UnitsOfWork, workspace: str, micro_usd: int | None, *, at: datetime = NOON) -> None:
    (accepted,) = submit_calls(
        [a_call(f"{workspace}-{micro_usd}")], workspace_name=workspace, uow=uow, grading=a_grading(), in_flight_limit=9
    )
    assert isinstance(accepted, Accepted)
    answer = decide(an_assessment(), rubric=a_rubric(), transcript=a_transcript())
    with uow() as work:
        (claimed,) = work.evaluations.claim([accepted.evaluation_id], lease_s=60)
        assert isinstance(claimed, Claimed)
        record = AttemptRecord("done", at, Usage(), "m", micro_usd)
        work.evaluations.finish(claimed.lease, claimed.key, answer, Evidence(), record)
        work.commit()


def _exceeded(budget: PostgresBudget, workspace: str) -> Exceeded | None:
    return asyncio.run(budget.exceeded(str(workspace_id(workspace))))


def test_without_a_cap_nothing_is_exceeded(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 10**9)

    assert _exceeded(_budget(uow), "a") is None


def test_a_workspace_that_has_spent_its_cap_waits_and_the_others_go_on(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 500)
    _spend(uow, "b", 499)
    budget = _budget(uow, each=500)

    spent = _exceeded(budget, "a")

    assert spent is not None
    assert "workspace" in spent.reason
    assert 0 < spent.wait_s <= 300
    assert _exceeded(budget, "b") is None


def test_the_cap_for_all_holds_for_each(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 300)
    _spend(uow, "b", 300)

    spent = _exceeded(_budget(uow, overall=600), "c")

    assert spent is not None
    assert "all workspaces" in spent.reason


def test_yesterday_is_not_counted_and_an_unknown_price_counts_as_nothing(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 900, at=NOON - timedelta(days=1))
    _spend(uow, "a", None)

    assert _exceeded(_budget(uow, each=500), "a") is None


def test_a_workspaces_own_cap_goes_before_that_of_the_settings(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 500)
    budget = _budget(uow, each=400)
    budget.set_cap("a", 1000)

    assert _exceeded(budget, "a") is None
    assert budget.spending() == (Spending("", 500, None), Spending("a", 500, 1000))


def test_raising_a_cap_makes_what_waited_for_it_due_at_once(uow: UnitsOfWork) -> None:
    (accepted,) = submit_calls([a_call("one")], workspace_name="a", uow=uow, grading=a_grading(), in_flight_limit=9)
    assert isinstance(accepted, Accepted)
    held = Failure(FailureKind.HELD, "budget_spent", "The budget is spent.", retry_after_s=300)
    with uow() as work:
        (claimed,) = work.evaluations.claim([accepted.evaluation_id], lease_s=60)
        record = AttemptRecord("parked", NOON, Usage(), "m", 0, None, held)
        work.evaluations.wait(claimed.lease, wait_s=300, reason="budget_spent", counts=False, record=record)
        work.commit()

    _budget(uow).set_cap("a", 10**6)

    with uow.engine.connect() as connection:
        due = select(evaluations.c.id).where(evaluations.c.not_before <= func.now())
        assert connection.execute(due).scalars().all() == [accepted.evaluation_id]


def test_books_that_can_not_be_read_leave_the_last_ones_standing(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 500)
    budget = _budget(uow, each=500)
    assert _exceeded(budget, "a") is not None

    with uow.engine.begin() as connection:
        connection.execute(update(attempts).values(cost_micro_usd=0))

    assert _exceeded(budget, "a") is not None, "read at most every 5 s"


def test_without_books_a_cap_lets_nothing_through_and_nobody_queues_up_for_them(uow: UnitsOfWork) -> None:
    away = create_engine("postgresql+psycopg2://x@127.0.0.1:1/x")
    capped = PostgresBudget(away, overall=1, each_workspace=None, now=lambda: NOON)
    free = PostgresBudget(away, overall=None, each_workspace=None, now=lambda: NOON)

    spent = _exceeded(capped, "a")

    assert spent is not None
    assert "can't be read" in spent.reason
    assert _exceeded(free, "a") is None
    assert uow.engine is not away
