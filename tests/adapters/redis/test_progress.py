"""Progress events on a real server, and without one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis
from structlog.testing import capture_logs

from qa_worker.adapters.redis.progress import RedisProgress
from qa_worker.application.running import ProgressEvent
from qa_worker.domain.run import RunState

SUITE = uuid.uuid4()


@pytest.fixture
def progress(broker_url: str) -> Iterator[RedisProgress]:
    made = RedisProgress(broker_url)
    yield made
    made.close()


def an_event(turns: int = 1, *, suite: uuid.UUID = SUITE) -> ProgressEvent:
    return ProgressEvent(uuid.uuid5(suite, "run"), suite, RunState.RUNNING, turns, 1.5)


@pytest.mark.services
def test_who_watches_gets_what_is_published_from_then_on_in_order(progress: RedisProgress) -> None:
    progress.publish(an_event(1))
    with progress.open(SUITE) as watching:
        progress.publish(an_event(2))
        progress.publish(an_event(3))
        progress.publish(an_event(9, suite=uuid.uuid4()))

        assert watching.wait(5) == [an_event(2), an_event(3)]
        assert watching.wait(0.01) == []


@pytest.mark.services
def test_who_watches_before_the_first_event_misses_none(progress: RedisProgress) -> None:
    with progress.open(SUITE) as watching:
        progress.publish(an_event(1))
        assert watching.wait(5) == [an_event(1)]


@pytest.mark.services
def test_a_stream_is_capped_and_goes_by_itself(progress: RedisProgress, broker_url: str) -> None:
    for turns in range(1500):
        progress.publish(an_event(turns))

    with redis.Redis.from_url(broker_url) as client:
        (key,) = client.keys("qa:progress:*")
        assert client.xlen(key) < 1300
        assert 0 < client.ttl(key) <= 3600


@pytest.mark.services
def test_what_a_newer_version_writes_is_passed_over(progress: RedisProgress, broker_url: str) -> None:
    with progress.open(SUITE) as watching, redis.Redis.from_url(broker_url) as client:
        client.xadd(f"qa:progress:{SUITE}", {"event": '{"run": 7}'})
        client.xadd(f"qa:progress:{SUITE}", {"other": "x"})
        progress.publish(an_event(4))
        assert watching.wait(5) == [an_event(4)]


def test_without_a_server_events_are_dropped_and_it_is_said_once() -> None:
    progress = RedisProgress("redis://127.0.0.1:1/0")
    with capture_logs() as logs:
        for turns in range(50):
            progress.publish(an_event(turns))
    progress.close()

    assert [line["event"] for line in logs] == ["progress_not_published"]


def test_without_a_server_who_watches_gets_nothing() -> None:
    progress = RedisProgress("redis://127.0.0.1:1/0")
    with progress.open(SUITE) as watching:
        assert watching.wait(0.01) == []
    progress.close()
