"""The one way to Redis from the hot path: half a second at most, and an outage is remembered.

redis-py's defaults retry ten times within 5 s timeouts: two commands on a dead server took 7 s (measured). Here the
first call that fails says so to everybody: for `RETRY_AFTER_S` nobody asks, then one does, and all go by its answer.

What is asked while an answer is on its way goes together with the next question: a script takes 50 microseconds on the
server, and a round trip of its own costs the client four times as much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

TIMEOUT_S = 0.5
RETRY_AFTER_S = 3.0
_SLICES = 10
AT_ONCE = 32
"""Questions in one round trip: 2 ms of the server's time. A server that froze answers them when it wakes, unheard."""

_T = TypeVar("_T")
Value = str | bytes | int | float
Reply = list[bytes | int]


class AwayError(Exception):
    """Redis can't be reached, or couldn't a moment ago. The message is the type of the fault."""


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    key: str
    arguments: Sequence[Value]
    reply: asyncio.Future[Reply]


class Shared:
    """One Lua script on one server, for one event loop; connects with the first call.

    `changed` is called once with False and the fault's name when Redis goes away, and once with True when it is back.
    """

    def __init__(self, url: str, script: str, changed: Callable[[bool, str], None]) -> None:
        self._url = url
        self._source = resources.files(__package__).joinpath(script).read_text(encoding="utf-8")
        self._changed = changed
        self._client: Redis | None = None
        self._sha = ""
        self._waiting: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None
        self._fault = ""
        self._ask_again_at = 0.0

    async def run(self, key: str, arguments: Sequence[Value]) -> Reply:
        """The script's reply. Raises AwayError at once while an outage is remembered, else within half a second."""
        if self._fault and time.monotonic() < self._ask_again_at:
            raise AwayError(self._fault)
        question = _Question(key, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await question.reply

    async def close(self) -> None:
        """Give the connections back. A later call connects again."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(self) -> None:
        """Ask what waits, together, until nothing does."""
        while self._waiting:
            together, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            try:
                # Only the time on the wire counts: a queue of our own is no outage.
                replies = await _in_time(self._replies(together))
            except (RedisError, OSError) as fault:
                together += self._waiting
                self._waiting = []
                self._went_away(fault)
                replies = [AwayError(self._fault)] * len(together)
            else:
                self._came_back()
            for question, reply in zip(together, replies, strict=True):
                _settle(question.reply, reply)

    async def _replies(self, together: Sequence[_Question]) -> list[Reply | Exception]:
        client = await self._connected()
        replies = await _pipelined(client, self._sha, together)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            # The server has started anew, or its scripts were flushed.
            await client.script_load(self._source)
            again = await _pipelined(client, self._sha, [together[number] for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _connected(self) -> Redis:
        if self._client is None:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=1,
                timeout=TIMEOUT_S,
                # Longer than we wait: see `_in_time`.
                socket_timeout=_SLICES * TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # A connection that idled through a restart of the server is found broken once. A timeout isn't
                # repeated: the script may have run.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
            client = Redis.from_pool(pool)
            self._sha = await client.script_load(self._source)
            self._client = client
        return self._client

    def _went_away(self, fault: Exception) -> None:
        self._ask_again_at = time.monotonic() + RETRY_AFTER_S
        if not self._fault:
            self._changed(False, type(fault).__name__)  # noqa: FBT003 - the callback's one meaning
        self._fault = type(fault).__name__

    def _came_back(self) -> None:
        if self._fault:
            self._fault = ""
            self._changed(True, "")  # noqa: FBT003


async def _in_time(asked: Coroutine[Any, Any, _T]) -> _T:
    """The result, if it comes within TIMEOUT_S; raises TimeoutError.

    In slices: a loop that got no CPU for half a second takes a few turns more, and finds the reply that lies there.
    """
    work = asyncio.create_task(asked)
    try:
        for _ in range(_SLICES):
            if (await asyncio.wait({work}, timeout=TIMEOUT_S / _SLICES))[0]:
                return work.result()
    finally:
        work.cancel()
    raise TimeoutError


async def _pipelined(client: Redis, sha: str, together: Sequence[_Question]) -> list[Reply | Exception]:
    pipeline = client.pipeline(transaction=False)
    for question in together:
        pipeline.evalsha(sha, 1, question.key, *question.arguments)
    replies: list[Reply | Exception] = await pipeline.execute(raise_on_error=False)
    return replies


def _settle(waiting: asyncio.Future[Reply], reply: Reply | Exception) -> None:
    if waiting.done():  # cancelled meanwhile
        return
    if isinstance(reply, Exception):
        waiting.set_exception(reply)
    else:
        waiting.set_result(reply)
