"""Daily budgets: what was spent, for a workspace and for all of them, and whether that is too much."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, func, select, text

from qa_worker.adapters.postgres.budget import PostgresBudget
from qa_worker.adapters.postgres.tables import attempts, daily_spending, evaluations
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


class Ages:
    """The age of the books, in the test's hands."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def _budget(
    uow: UnitsOfWork, *, overall: int | None = None, each: int | None = None, ages: Ages | None = None
) -> PostgresBudget:
    return PostgresBudget(
        uow.engine, overall=overall, each_workspace=each, now=lambda: NOON, monotonic=ages or time.monotonic
    )


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
    assert 0 < spent.wait_s <= 15
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


def test_a_cap_that_is_raised_lets_the_next_request_through(uow: UnitsOfWork) -> None:
    """However new the books of the workers are: a row that is put off now would wait for minutes."""
    _spend(uow, "a", 500)
    ages = Ages()
    budget = _budget(uow, overall=500, each=400, ages=ages)
    assert _exceeded(budget, "a") is not None
    command = _budget(uow)

    command.set_cap("a", 1000)
    ages.at += 0.5
    spent = _exceeded(budget, "a")
    assert spent is not None
    assert "all workspaces" in spent.reason

    command.set_overall_cap(1000)
    ages.at += 0.5
    assert _exceeded(budget, "a") is None


def test_the_turn_of_the_day_lets_the_next_request_through(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 500)
    days = [NOON]
    budget = PostgresBudget(uow.engine, overall=None, each_workspace=500, now=lambda: days[-1], monotonic=Ages())
    assert _exceeded(budget, "a") is not None

    days.append(NOON + timedelta(hours=12))

    assert _exceeded(budget, "a") is None


def test_an_overall_cap_that_was_set_goes_before_that_of_the_settings_until_it_is_taken_away(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 500)
    budget = _budget(uow, overall=400)
    assert budget.left().overall == -100

    budget.set_overall_cap(700)
    budget.set_overall_cap(900)
    assert (budget.left().overall, budget.spending()[0]) == (400, Spending("", 500, 900))
    assert _exceeded(budget, "a") is None

    budget.set_overall_cap(None)
    assert budget.spending()[0].cap == 400


def test_an_overall_cap_that_was_set_holds_without_one_in_the_settings(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 500)
    budget = _budget(uow)
    budget.set_overall_cap(500)

    assert _exceeded(budget, "b") is not None


def _parked(uow: UnitsOfWork, workspace: str) -> uuid.UUID:
    claimed = _claimed(uow, f"{workspace}-parked", workspace=workspace)
    held = Failure(FailureKind.HELD, "budget_spent", "The budget is spent.", retry_after_s=300)
    with uow() as work:
        record = AttemptRecord("parked", NOON, Usage(), "m", 0, None, held)
        work.evaluations.wait(claimed.lease, wait_s=300, reason="budget_spent", counts=False, record=record)
        work.commit()
    return claimed.lease.work_id


def _due(uow: UnitsOfWork) -> set[uuid.UUID]:
    with uow.engine.connect() as connection:
        return set(connection.execute(select(evaluations.c.id).where(evaluations.c.not_before <= func.now())).scalars())


def test_raising_the_overall_cap_makes_everybodys_work_due(uow: UnitsOfWork) -> None:
    parked = {_parked(uow, "a"), _parked(uow, "b")}
    assert _due(uow) == set()

    _budget(uow).set_overall_cap(10**6)

    assert _due(uow) == parked


def test_raising_a_cap_makes_what_waited_for_it_due_at_once(uow: UnitsOfWork) -> None:
    ours = _parked(uow, "a")
    _parked(uow, "b")
    otherwise = _claimed(uow, "waits otherwise")
    with uow() as work:
        work.evaluations.wait(otherwise.lease, wait_s=300, reason="x", counts=True, record=_failed("retry", 0))
        work.commit()

    _budget(uow).set_cap("a", 10**6)

    assert _due(uow) == {ours}


@contextmanager
def _unreadable(uow: UnitsOfWork) -> Iterator[None]:
    """Nobody can read the books meanwhile."""
    with uow.engine.begin() as connection:
        connection.execute(text("LOCK TABLE daily_spending IN ACCESS EXCLUSIVE MODE"))
        yield


def test_books_that_are_a_little_old_serve_at_once_while_they_are_read_again(uow: UnitsOfWork) -> None:
    _spend(uow, "a", 400)
    ages, key = Ages(), str(workspace_id("a"))
    budget = _budget(uow, each=500, ages=ages)

    async def ask() -> None:
        assert await budget.exceeded(key) is None
        await asyncio.to_thread(_spend, uow, "a", 100)
        ages.at += 2
        with _unreadable(uow):
            # Or it would wait for as long as the table is locked.
            assert await asyncio.wait_for(budget.exceeded(key), 10) is None
        while await budget.exceeded(key) is None:  # noqa: ASYNC110 - nothing else tells that they are read
            await asyncio.sleep(0.01)

    asyncio.run(ask())


def test_books_that_are_old_are_read_before_they_are_used(uow: UnitsOfWork) -> None:
    ages = Ages()
    budget = _budget(uow, each=500, ages=ages)
    assert _exceeded(budget, "a") is None
    _spend(uow, "a", 500)

    assert _exceeded(budget, "a") is None
    ages.at += 10
    assert _exceeded(budget, "a") is not None


def test_books_that_can_not_be_read_leave_the_last_ones_standing_for_half_a_minute(
    uow: UnitsOfWork, database_url: str
) -> None:
    impatient = create_engine(database_url, connect_args={"options": "-c statement_timeout=100"})
    ages = Ages()
    budget = PostgresBudget(impatient, overall=None, each_workspace=500, now=lambda: NOON, monotonic=ages)
    _spend(uow, "a", 500)
    assert _exceeded(budget, "a") is not None
    assert _exceeded(budget, "b") is None

    with _unreadable(uow):
        ages.at += 20
        assert _exceeded(budget, "b") is None
        ages.at += 20
        spent = _exceeded(budget, "b")
    impatient.dispose()

    assert spent is not None
    assert "can't be read" in spent.reason
    ages.at += 20
    assert _exceeded(_budget(uow, each=500), "b") is None


def test_the_books_are_a_row_for_each_workspace_and_not_its_attempts(uow: UnitsOfWork) -> None:
    for micro_usd in (100, 150, 250):
        _spend(uow, "a", micro_usd)
    with uow.engine.begin() as connection:
        connection.execute(attempts.delete())

    assert _exceeded(_budget(uow, each=500), "a") is not None
    with uow.engine.connect() as connection:
        rows = connection.execute(select(daily_spending)).all()
    assert [tuple(row) for row in rows] == [(NOON.date(), workspace_id("a"), 500)]


def _claimed(uow: UnitsOfWork, ref: str, *, workspace: str = "a", lease_s: float = 60) -> Claimed:
    (accepted,) = submit_calls(
        [a_call(ref)], workspace_name=workspace, uow=uow, grading=a_grading(), in_flight_limit=99
    )
    assert isinstance(accepted, Accepted)
    with uow() as work:
        (claimed,) = work.evaluations.claim([accepted.evaluation_id], lease_s=lease_s)
        work.commit()
    assert isinstance(claimed, Claimed)
    return claimed


def _failed(result: str, micro_usd: int) -> AttemptRecord:
    failure = Failure(FailureKind.UNREADABLE, "not_json", "No JSON.")
    return AttemptRecord(result, NOON, Usage(output_tokens=5), "m", micro_usd, None, failure)


def test_whatever_an_attempt_came_to_it_is_in_the_books_once(uow: UnitsOfWork) -> None:
    retried, buried, lost = _claimed(uow, "retried"), _claimed(uow, "buried"), _claimed(uow, "lost", lease_s=0)
    with uow() as work:
        assert work.evaluations.free_expired(limit=10) == (1, 0)
        work.commit()

    def write() -> None:
        with uow() as work:
            record = _failed("retry", 10)
            work.evaluations.wait(retried.lease, wait_s=0, reason="not_json", counts=True, record=record)
            work.evaluations.bury(buried.lease, evidence=None, record=_failed("dead", 200))
            work.evaluations.charge(lost.lease, _failed("abandoned", 3000))
            work.commit()

    write()
    write()  # as after a commit whose answer was lost

    (every, _) = _budget(uow).spending()
    assert every.spent == 3210
    with uow.engine.connect() as connection:
        assert connection.execute(select(func.sum(attempts.c.cost_micro_usd))).scalar_one() == every.spent


def test_what_is_rolled_back_was_not_spent(uow: UnitsOfWork) -> None:
    claimed = _claimed(uow, "one")

    with uow() as work:
        work.evaluations.bury(claimed.lease, evidence=None, record=_failed("dead", 200))

    assert _budget(uow).spending() == (Spending("", 0, None), Spending("a", 0, None))


def test_results_of_the_same_workspaces_in_any_order_never_block_each_other_for_good(uow: UnitsOfWork) -> None:
    names = [f"w-{number}" for number in range(6)]
    claimed = [_claimed(uow, f"call-{turn}", workspace=name) for turn in range(8) for name in names]

    def write(seed: int) -> None:
        mine = [one for number, one in enumerate(claimed) if number // len(names) == seed]
        random.Random(seed).shuffle(mine)  # noqa: S311 - an order, no secret
        with uow() as work:
            for one in mine:
                work.evaluations.wait(one.lease, wait_s=0, reason="x", counts=True, record=_failed("retry", 7))
            work.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(8)))

    assert [one.spent for one in _budget(uow).spending()] == [7 * 48, *[7 * 8] * 6]


def test_without_books_a_cap_lets_nothing_through_and_nobody_queues_up_for_them(uow: UnitsOfWork) -> None:
    away = create_engine("postgresql+psycopg2://x@127.0.0.1:1/x")
    capped = PostgresBudget(away, overall=1, each_workspace=None, now=lambda: NOON)
    free = PostgresBudget(away, overall=None, each_workspace=None, now=lambda: NOON)

    spent = _exceeded(capped, "a")

    assert spent is not None
    assert "can't be read" in spent.reason
    assert _exceeded(free, "a") is None
    assert uow.engine is not away
