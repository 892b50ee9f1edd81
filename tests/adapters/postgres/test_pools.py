"""Bulkheads: each kind of process has a pool of its own, and more at once than it holds wait for their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.pool import QueuePool

from qa_worker import bootstrap
from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application.ports import Wanted
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.rubric import JudgeKind
from tests.builders import a_call, a_grading
from tests.conftest import Outbox, UnitsOfWork

pytestmark = pytest.mark.services

AT_ONCE, SIZE = 100, 5


@pytest.fixture
def small(database_url: str, engine: Engine) -> Iterator[Engine]:
    """A pool of five, as an API process may have it. The database is emptied afterwards, by `engine`."""
    assert str(engine.url.database) in database_url
    made = make_engine(database_url, pool_size=SIZE, pool_timeout_s=30, application_name="small")
    yield made
    made.dispose()


def test_a_hundred_submissions_at_once_share_a_pool_of_five(small: Engine, outbox: Outbox) -> None:
    uow, together = UnitsOfWork(small, outbox), threading.Barrier(AT_ONCE)

    def submit(number: int) -> bool:
        together.wait()
        (answer,) = submit_calls(
            [a_call(f"call-{number}")], workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=AT_ONCE
        )
        return isinstance(answer, Accepted) and answer.created

    with ThreadPoolExecutor(AT_ONCE) as pool:
        accepted = list(pool.map(submit, range(AT_ONCE)))

    assert accepted == [True] * AT_ONCE
    assert isinstance(small.pool, QueuePool)
    assert small.pool.checkedout() == 0
    assert small.pool.checkedin() <= SIZE
    with small.connect() as connection:
        assert connection.execute(select(func.count()).select_from(evaluations)).scalar_one() == AT_ONCE


def test_a_command_with_any_number_of_calls_keeps_to_its_two_connections(
    database_url: str, broker_url: str, small: Engine
) -> None:
    """`evaluate` hands over whole files: it waits for itself, and takes nothing from the workers."""
    client = bootstrap.Client(database_url=database_url, broker_url=broker_url)
    wanted = Wanted(judge=JudgeKind.RULES)

    def submit(number: int) -> int:
        made = [a_call(f"call-{number}-{place}") for place in range(20)]
        answers = client.submit(made, workspace="w", wanted=wanted)
        return sum(isinstance(answer, Accepted) for answer in answers)

    shown = {0}
    try:
        with ThreadPoolExecutor(30) as pool, small.connect() as connection:
            accepted = [pool.submit(submit, number) for number in range(30)]
            while not all(one.done() for one in accepted):
                shown.add(connection.execute(_CONNECTIONS_OF_COMMANDS).scalar_one())
                connection.rollback()
        assert sum(one.result() for one in accepted) == 600
    finally:
        client.close()

    assert 1 <= max(shown) <= 2


_CONNECTIONS_OF_COMMANDS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qa-worker' AND datname = current_database()"
)
