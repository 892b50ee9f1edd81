"""A worker that is killed between the POST of an alert and its record costs time, and a second POST under the same id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update

from benchmarks.kill_alerts import desk, kill_workers
from qa_worker.adapters.postgres.tables import dead_letters, deliveries, delivery_attempts, endpoints
from qa_worker.adapters.secrets import new_key
from qa_worker.adapters.webhooks.signing import new_secret
from qa_worker.messages import Queue
from tests.e2e.conftest import System
from tests.e2e.workers import eventually
from tests.servers.behaviours import Hang
from tests.servers.receiver import Behaviour, Receiver

pytestmark = [pytest.mark.services, pytest.mark.e2e]

KILLS = 5


def test_every_alert_arrives_though_the_worker_of_its_first_try_is_killed(
    database_url: str, broker_url: str, engine: Engine, tmp_path: Path
) -> None:
    """The proof with a hundred kills is `python -m benchmarks.kill_alerts`: the same code."""
    assert engine.url.database

    result = kill_workers(database_url=database_url, broker_url=broker_url, kills=KILLS, folder=tmp_path)

    assert (result["killed_before_answer"], result["killed_after_answer"]) == (3, 2)
    assert (result["delivered"], result["dead_letters"]) == (KILLS, 0)
    assert (result["webhook_ids"], result["unknown_webhook_ids"], result["most_posts_of_one_id"]) == (KILLS, 0, 2)
    assert (result["bodies_that_changed"], result["bad_signatures"]) == (0, 0)


def test_a_celery_worker_that_is_killed_with_four_alerts_on_their_way_loses_none(
    system: System, database_url: str, broker_url: str
) -> None:
    key, secret = new_key(), new_secret()
    system.workers.env |= {
        "QA_ALERT_ALLOW_HTTP": "true",
        "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8",
        "QA_SECRET_KEYS": key,
    }
    first_tries: set[str] = set()

    def by_path(_path: str) -> Behaviour | None:
        newest = receiver.deliveries[-1].id
        known = newest in first_tries
        first_tries.add(newest)
        return None if known else Hang()

    with (
        Receiver([secret], by_path=by_path) as receiver,
        desk(database_url=database_url, broker_url=broker_url, key=key) as raiser,
    ):
        victim = system.workers.start(Queue.SEND_ALERT)
        endpoint = raiser.endpoint("ops", url=receiver.url, secret=secret)
        _is_known_to_be_quick(system.engine)
        for number in range(4):
            raiser.alert(endpoint, number)
        eventually(lambda: len(receiver.deliveries) == 4, what="all four are on their way")

        system.workers.kill(victim)
        with system.engine.connect() as connection:
            assert connection.execute(select(delivery_attempts)).all() == []
        with system.engine.begin() as connection:
            # Its leases last half a minute.
            connection.execute(update(deliveries).values(lease_until=func.now()))
        system.workers.start(Queue.SEND_ALERT)
        system.workers.start(Queue.MAINTENANCE)
        system.workers.start_beat()

        eventually(lambda: raiser.left() == 0, what="all four are delivered")
        posts = list(receiver.deliveries)
    with system.engine.connect() as connection:
        rows = connection.execute(select(deliveries)).all()
        assert connection.execute(select(dead_letters)).all() == []
    assert [row.state for row in rows] == ["done"] * 4
    assert Counter(post.id for post in posts) == Counter({row.message_id: 2 for row in rows})
    assert len({(post.id, post.body) for post in posts}) == 4
    assert all(post.verified for post in posts)


def _is_known_to_be_quick(engine: Engine) -> None:
    """A new endpoint gets one delivery at a time."""
    with engine.begin() as connection:
        connection.execute(update(endpoints).values(took_s=0.05))
