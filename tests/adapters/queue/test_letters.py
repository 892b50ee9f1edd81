"""The dead-letter queue on a real Redis-protocol server, and on kombu's own broker in memory, which acts like RabbitMQ here."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
import redis
from kombu import Connection
from kombu.transport import memory

from qa_worker.adapters.queue.letters import BrokerLetterQueue
from qa_worker.adapters.queue.notices import to_json
from qa_worker.application.dead_letters import Notice, UnreadMessage
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.messages import Queue
from qa_worker.producer import declared_queue
from tests.fakes import FrozenClock
from tests.letters import a_message, a_notice

pytestmark = pytest.mark.services
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["redis", "memory"])
def url(request: pytest.FixtureRequest, broker_url: str) -> Iterator[str]:
    """Both kinds of brokers."""
    yield broker_url if request.param == "redis" else "memory://"
    memory.Channel.queues.clear()


@pytest.fixture
def queue(url: str) -> Iterator[BrokerLetterQueue]:
    """The queue, empty."""
    made = BrokerLetterQueue(url, FrozenClock(AT))
    yield made
    made.close()


@pytest.fixture
def on_redis(broker_url: str) -> Iterator[BrokerLetterQueue]:
    """The queue where it can be looked at."""
    made = BrokerLetterQueue(broker_url, FrozenClock(AT))
    yield made
    made.close()


def _notices(count: int) -> list[Notice]:
    return [a_notice(f"http_{500 + number}") for number in range(count)]


def _taken(queue: BrokerLetterQueue, limit: int = 100) -> list[Notice | UnreadMessage]:
    found: list[Notice | UnreadMessage] = []
    queue.take(limit, found.extend)
    return found


def test_what_is_published_is_counted_and_taken_from_the_front(queue: BrokerLetterQueue) -> None:
    first, second, third = notices = _notices(3)
    queue.publish(notices)

    assert queue.depth() == 3
    assert _taken(queue, 2) == [first, second]
    assert queue.depth() == 1
    assert _taken(queue) == [third]
    assert (queue.depth(), _taken(queue)) == (0, [])


def test_a_kept_message_comes_back_as_it_was(queue: BrokerLetterQueue) -> None:
    message = a_message(call_id="x")

    queue.keep(message)

    assert _taken(queue) == [message]


def test_what_can_not_be_settled_stays_in_its_order(queue: BrokerLetterQueue) -> None:
    notices = _notices(3)
    queue.publish(notices)

    def away(_items: Sequence[Notice | UnreadMessage]) -> None:
        raise StoreUnavailable("no database")

    with pytest.raises(StoreUnavailable, match="no database"):
        queue.take(2, away)

    assert queue.depth() == 3
    assert sorted(map(str, _taken(queue))) == sorted(map(str, notices))


def test_what_somebody_else_put_there_becomes_a_message_that_nobody_can_read(
    queue: BrokerLetterQueue, url: str
) -> None:
    assert queue.depth() == 0
    with Connection(url) as connection:
        producer = connection.Producer()
        declare = [declared_queue(Queue.DEAD_LETTER)]
        for body, headers in (
            ({"hello": 1}, {}),
            ({"letter_id": "x", "announcement": "y"}, {}),
            ([[], {"call_id": "1"}, {}], {"task": "evaluate-call", "x-first-death-queue": "evaluate-call"}),
        ):
            producer.publish(body, routing_key="dead-letter", serializer="json", headers=headers, declare=declare)

    found = _taken(queue)

    assert all(isinstance(item, UnreadMessage) for item in found)
    assert [(item.queue, item.task) for item in found if isinstance(item, UnreadMessage)] == [
        ("dead-letter", ""),
        ("dead-letter", ""),
        ("evaluate-call", "evaluate-call"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "call"},
        {"reason": "a\x00b"},
        {"last_error": "\ud800"},
        {"attempts": 2**31},
        {"attempts": "1"},
        {"died_at": "2026-11-01T12:00:00"},
        {"ref_id": "x"},
        {"payload": {"head": ["a"]}},
        {"payload": "ids"},
    ],
    ids=str,
)
def test_a_letter_that_no_table_could_take_is_a_message_that_nobody_can_read(
    wrong: dict[str, object], broker_url: str, on_redis: BrokerLetterQueue
) -> None:
    body = {**to_json(a_notice("http_500")), **wrong}
    with Connection(broker_url) as connection:
        declare = [declared_queue(Queue.DEAD_LETTER)]
        connection.Producer().publish(body, routing_key="dead-letter", serializer="json", declare=declare)

    (found,) = _taken(on_redis)

    assert isinstance(found, UnreadMessage)


def test_monitors_see_the_whole_letter_and_nothing_that_was_said(on_redis: BrokerLetterQueue, broker_url: str) -> None:
    (notice,) = _notices(1)
    on_redis.publish([notice])

    with redis.Redis.from_url(broker_url) as client:
        (raw,) = client.lrange("dead-letter", 0, -1)
    envelope = json.loads(raw)
    assert json.loads(base64.b64decode(envelope["body"])) == {
        "letter_id": str(notice.letter_id),
        "announcement": str(notice.announcement),
        "said_at": "2026-11-01T12:00:00+00:00",
        "kind": "alert",
        "reason": "http_500",
        "queue": "send-alert",
        "task": "send-alert",
        "ref_id": str(notice.ref_id),
        "workspace_id": str(notice.workspace_id),
        "endpoint_id": str(notice.endpoint_id),
        "attempts": 7,
        "first_error": "The receiver answered 503.",
        "last_error": "The receiver answered 500.",
        "died_at": "2026-11-01T12:00:00+00:00",
        "deaths": 1,
        "again_of": None,
        "payload": {"delivery_id": str(notice.ref_id)},
    }


def test_a_broker_that_is_away_says_so() -> None:
    queue = BrokerLetterQueue("redis://127.0.0.1:1/0", FrozenClock(AT))

    with pytest.raises(StoreUnavailable):
        queue.depth()


def test_a_connection_that_broke_while_it_idled_is_made_anew(on_redis: BrokerLetterQueue, broker_url: str) -> None:
    on_redis.publish(_notices(1))
    with redis.Redis.from_url(broker_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)

    on_redis.publish(_notices(1))

    assert on_redis.depth() == 2
