"""Results that share a transaction: what goes wrong with one is its own affair."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from qa_worker.adapters.postgres.records import DirectRecords, GroupedRecords, Write
from qa_worker.adapters.postgres.tables import workspaces
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.application.ports import UnitOfWork
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from tests.builders import a_call
from tests.conftest import UnitsOfWork

pytestmark = pytest.mark.services


class Flaky:
    """Begins transactions; the first `away` times the database is out of reach."""

    def __init__(self, uow: UnitsOfWork, *, away: int = 0) -> None:
        self._uow = uow
        self._away = away
        self.begun = 0

    def __call__(self) -> PostgresUnitOfWork:
        self.begun += 1
        if self.begun <= self._away:
            raise StoreUnavailable("away")
        return self._uow()


@pytest.fixture
def begin(uow: UnitsOfWork) -> Flaky:
    """Transactions that are counted."""
    return Flaky(uow)


@pytest.fixture
def grouped(begin: Flaky) -> Iterator[GroupedRecords]:
    """Results within 50 ms share a commit."""
    records = GroupedRecords(begin, window_s=0.05, patience_s=2)
    yield records
    records.close()


def _adds(name: str) -> Write:
    def write(work: UnitOfWork) -> None:
        work.calls.add_all([a_call(name)], workspace_name=name)

    return write


def _names(uow: UnitsOfWork) -> list[str]:
    with uow.engine.connect() as connection:
        return sorted(connection.execute(select(workspaces.c.name)).scalars())


def test_results_that_come_together_share_a_transaction(
    uow: UnitsOfWork, begin: Flaky, grouped: GroupedRecords
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: grouped.write(_adds(f"w{n}")), range(8)))

    assert _names(uow) == [f"w{n}" for n in range(8)]
    assert begin.begun < 8


def test_a_lost_lease_is_told_to_its_own_writer_and_the_others_are_written(
    uow: UnitsOfWork, grouped: GroupedRecords
) -> None:
    def lost(_work: UnitOfWork) -> None:
        raise LeaseLost("one")

    first, second = grouped.submit(_adds("a")), grouped.submit(lost)
    third = grouped.submit(_adds("b"))

    assert first.result(5) is None
    assert isinstance(second.exception(5), LeaseLost)
    assert third.result(5) is None
    assert _names(uow) == ["a", "b"]


def test_a_fault_in_one_result_rolls_only_that_one_back(uow: UnitsOfWork, grouped: GroupedRecords) -> None:
    def broken(work: UnitOfWork) -> None:
        work.calls.add_all([a_call("half")], workspace_name="half")
        raise ZeroDivisionError

    results = [grouped.submit(what) for what in (_adds("a"), broken, _adds("b"))]

    assert [type(result.exception(5)) for result in results] == [type(None), ZeroDivisionError, type(None)]
    assert _names(uow) == ["a", "b"]


def test_a_result_outlives_a_database_that_is_away_for_a_moment(uow: UnitsOfWork) -> None:
    for records in (
        DirectRecords(Flaky(uow, away=3), patience_s=5),
        GroupedRecords(Flaky(uow, away=3), window_s=0, patience_s=5),
    ):
        name = type(records).__name__
        records.write(_adds(name))

        assert name in _names(uow)


def test_a_database_that_stays_away_is_said_so(uow: UnitsOfWork) -> None:
    records = GroupedRecords(Flaky(uow, away=10**6), window_s=0, patience_s=0.2)

    with pytest.raises(StoreUnavailable):
        records.write(_adds("a"))
    records.close()


def test_what_waits_at_the_end_is_written_before_it(uow: UnitsOfWork) -> None:
    records = GroupedRecords(uow, window_s=0.3, patience_s=1)
    results = [records.submit(_adds(f"w{n}")) for n in range(5)]

    records.close()

    assert [result.result(1) for result in results] == [None] * 5
    assert len(_names(uow)) == 5


def test_a_result_that_comes_after_the_end_is_written_all_the_same(uow: UnitsOfWork) -> None:
    records = GroupedRecords(uow, window_s=0, patience_s=1)
    records.write(_adds("a"))
    records.close()
    late = threading.Thread(target=lambda: records.write(_adds("b")))
    late.start()
    late.join(5)
    time.sleep(0.05)

    assert _names(uow) == ["a", "b"]
    records.close()
