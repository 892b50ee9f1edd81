"""The workers' transport: what is taken together, noted together and settled together is the same as one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Message, Queue

from qa_worker.adapters.queue.guarded_redis import TOGETHER, Transport

pytestmark = pytest.mark.services

NAME = "grouped"


class Taker:
    """Takes messages from one queue, as a worker does."""

    def __init__(self, broker_url: str, *, prefetch: int = 0) -> None:
        self.connection = Connection(broker_url, transport=Transport)
        self.channel: Any = self.connection.channel()
        self.taken: list[Message] = []
        consumer = Consumer(self.channel, [Queue(NAME)], on_message=self.taken.append)
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()

    def take(self) -> None:
        """Whatever can be had now."""
        try:
            while True:
                self.connection.drain_events(timeout=1.5)
        except TimeoutError:
            return

    def settle_in_groups(self) -> None:
        """From now on, as in a worker's event loop."""
        transport: Any = self.connection.transport
        transport.settles_in_groups = True

    def close(self) -> None:
        """Away."""
        self.connection.release()


@pytest.fixture
def store(broker_url: str) -> Iterator[redis.Redis]:
    """The broker as it is."""
    with redis.Redis.from_url(broker_url) as client:
        yield client


def _publish(broker_url: str, count: int) -> None:
    with Connection(broker_url) as connection:
        producer = connection.Producer()
        for number in range(count):
            producer.publish({"number": number}, routing_key=NAME, declare=[Queue(NAME)])


def _numbers(taker: Taker) -> list[int]:
    return [json.loads(message.body or "")["number"] for message in taker.taken]


def test_all_messages_come_once_in_their_order_and_are_noted_until_they_are_settled(
    broker_url: str, store: redis.Redis
) -> None:
    _publish(broker_url, 2 * TOGETHER + 3)
    taker = Taker(broker_url)

    taker.take()

    assert _numbers(taker) == list(range(2 * TOGETHER + 3))
    assert store.hlen("unacked") == store.zcard("unacked_index") == 2 * TOGETHER + 3
    for message in taker.taken:
        message.ack()
    assert store.hlen("unacked") == store.zcard("unacked_index") == 0
    taker.close()


def test_no_more_is_taken_than_there_is_room_for(broker_url: str, store: redis.Redis) -> None:
    _publish(broker_url, 10)
    taker = Taker(broker_url, prefetch=4)

    taker.take()

    assert _numbers(taker) == [0, 1, 2, 3]
    assert store.llen(NAME) == 6
    taker.close()


def test_what_is_no_message_stops_none_of_those_around_it(broker_url: str, store: redis.Redis) -> None:
    _publish(broker_url, 1)
    store.lpush(NAME, b"no message at all")
    _publish(broker_url, 1)
    taker = Taker(broker_url)

    taker.take()

    bodies: list[Any] = [message.body for message in taker.taken]
    assert bodies[1] == b"no message at all"
    assert len(taker.taken) == 3
    taker.close()


def test_in_an_event_loop_what_was_settled_is_written_in_groups(broker_url: str, store: redis.Redis) -> None:
    _publish(broker_url, 5)
    taker = Taker(broker_url, prefetch=5)
    taker.take()
    taker.settle_in_groups()

    for message in taker.taken:
        message.ack()

    assert store.hlen("unacked") == 5
    assert taker.channel.qos.can_consume()
    taker.channel.qos.settle()
    assert store.hlen("unacked") == store.zcard("unacked_index") == 0
    taker.close()


def test_a_channel_that_closes_settles_what_was_settled_and_gives_back_the_rest(
    broker_url: str, store: redis.Redis
) -> None:
    _publish(broker_url, 5)
    taker = Taker(broker_url)
    taker.take()
    taker.settle_in_groups()
    for message in taker.taken[:2]:
        message.ack()

    taker.close()

    assert store.hlen("unacked") == 0
    left = [json.loads(item)["body"] for item in store.lrange(NAME, 0, -1)]
    assert len(left) == 3


def test_a_message_that_was_never_settled_comes_again_as_it_was(broker_url: str) -> None:
    _publish(broker_url, 2)
    taker = Taker(broker_url)
    taker.take()
    first = taker.taken[0]

    taker.channel.qos.restore_by_tag(first.delivery_tag)
    taker.take()

    assert _numbers(taker) == [0, 1, 0]
    headers: dict[str, Any] = taker.taken[2].headers
    assert headers["redelivered"] is True
    taker.close()
