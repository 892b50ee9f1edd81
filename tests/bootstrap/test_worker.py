"""What a worker process is built from: its own kind and size, which Celery tells when it starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery.signals import worker_init

from qa_worker import bootstrap
from qa_worker.celery_app import app


class _Celery:
    """What Celery's worker says of itself."""

    def __init__(self, *, concurrency: object) -> None:
        self.concurrency = concurrency


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    app.loader.import_default_modules()
    bootstrap.close_worker()
    yield
    bootstrap.close_worker()
    bootstrap.start_worker(slots=None)
    bootstrap.close_worker()


def test_a_workspace_takes_by_messages_of_its_own_no_more_than_half_of_the_slots_that_there_are() -> None:
    worker_init.send(sender=_Celery(concurrency=4))

    assert bootstrap.worker().evaluating.share == 2


@pytest.mark.parametrize("concurrency", [None, "auto"])
def test_a_size_that_is_not_known_yet_is_that_of_the_settings(concurrency: object) -> None:
    worker_init.send(sender=_Celery(concurrency=concurrency))

    assert bootstrap.worker().evaluating.share == 16
