"""How many share the provider's limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis

from qa_worker.adapters.redis.fellows import KEY, Fellows

pytestmark = pytest.mark.services


class Clock:
    """The server's clock."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _run(url: str, body: Callable[[Clock, Fellows, Fellows], Awaitable[None]]) -> None:
    async def whole() -> None:
        clock = Clock()
        both = [Fellows(url, assumed=4, server_clock=clock) for _ in range(2)]
        try:
            await body(clock, *both)
        finally:
            for one in both:
                await one.close()

    asyncio.run(whole())


def test_it_is_assumed_until_redis_has_told(broker_url: str) -> None:
    async def body(_: Clock, first: Fellows, second: Fellows) -> None:
        assert (first.count, second.count) == (4, 4)
        await first.tell()
        await second.tell()
        assert (first.count, second.count) == (1, 2)

    _run(broker_url, body)


def test_redis_is_asked_now_and_then_only(broker_url: str) -> None:
    async def body(_: Clock, first: Fellows, second: Fellows) -> None:
        await first.tell()
        await second.tell()
        await first.tell()
        assert first.count == 1

    _run(broker_url, body)


def test_whoever_said_nothing_for_long_is_gone(broker_url: str) -> None:
    async def body(clock: Clock, first: Fellows, second: Fellows) -> None:
        await first.tell()
        clock.now += 301
        await second.tell()
        assert second.count == 1

    _run(broker_url, body)
    with redis.Redis.from_url(broker_url) as client:
        assert client.zcard(KEY) == 1
        assert 0 < client.ttl(KEY) <= 300


def test_without_redis_the_last_count_holds() -> None:
    async def body(_: Clock, first: Fellows, second: Fellows) -> None:
        await first.tell()
        await second.tell()
        assert (first.count, second.count) == (4, 4)

    _run("redis://127.0.0.1:1/0", body)
