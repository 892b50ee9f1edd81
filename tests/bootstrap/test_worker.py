"""What a worker process is built from: its own kind and size, which Celery tells when it starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery.signals import worker_init

from qa_worker import bootstrap
from qa_worker.bootstrap.worker import pool_size
from qa_worker.celery_app import app
from qa_worker.cli.stack_spec import WORKERS, worker_arguments
from qa_worker.settings import Settings


class _Celery:
    """What Celery's worker says of itself."""

    def __init__(self, *, concurrency: object = 4, queues: str = "evaluate-call,backlog") -> None:
        self.app, self.concurrency = app, concurrency
        app.amqp.queues.select(queues.split(","))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    app.loader.import_default_modules()
    bootstrap.close_worker()
    yield
    bootstrap.close_worker()
    bootstrap.start_worker(bootstrap.Serves())
    bootstrap.close_worker()
    app.amqp.queues.select(list(app.amqp.queues))


def test_a_workspace_takes_by_messages_of_its_own_no_more_than_half_of_the_slots_that_there_are() -> None:
    worker_init.send(sender=_Celery(concurrency=4))

    assert bootstrap.worker().evaluating.share == 2


@pytest.mark.parametrize("concurrency", [None, "auto"])
def test_a_size_that_is_not_known_yet_is_that_of_the_settings(concurrency: object) -> None:
    worker_init.send(sender=_Celery(concurrency=concurrency))

    assert bootstrap.worker().evaluating.share == 16


def test_each_kind_of_process_has_a_pool_of_its_own_size() -> None:
    sizes = {"QA_EVALUATE_DB_POOL_SIZE": 2, "QA_RUN_DB_POOL_SIZE": 3, "QA_ALERT_DB_POOL_SIZE": 4}
    chosen = Settings.model_validate({**sizes, "QA_MAINTENANCE_DB_POOL_SIZE": 5, "QA_DB_POOL_SIZE": 6})
    taken = [worker_arguments(queue)[5].split(",") for queue in WORKERS]

    assert [pool_size(chosen, queues) for queues in taken] == [2, 3, 4, 5]
    assert pool_size(chosen, []) == 6, "a process that serves no queue"
    assert pool_size(chosen, ["maintenance", "backlog"]) == 5, (
        "a worker that serves several takes what the largest needs"
    )


@pytest.mark.parametrize(("queues", "size"), [("run-scenario", 16), ("maintenance", 6)])
def test_a_process_finds_out_what_it_serves(queues: str, size: int) -> None:
    worker_init.send(sender=_Celery(queues=queues))

    assert bootstrap.worker().pool_size == size


def test_the_processes_of_a_stack_leave_postgresql_room_for_others() -> None:
    chosen = Settings()

    assert sum(pool_size(chosen, [queue]) for queue in WORKERS) <= 50, (
        "half of what PostgreSQL allows unless it is told"
    )
