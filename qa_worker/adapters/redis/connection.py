"""The one way to Redis from the hot path: half a second at most, and an outage is remembered.

redis-py's defaults retry ten times within 5 s timeouts: two commands on a dead server took 7 s (measured). Here the
first call that fails says so to everybody: for `RETRY_AFTER_S` nobody asks, then one does, and all go by its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

TIMEOUT_S = 0.5
RETRY_AFTER_S = 3.0
CONNECTIONS = 16
"""A script takes 50 microseconds on the server: more connections than that wait for its one thread."""

Value = str | bytes | int | float
Reply = list[bytes | int]


class AwayError(Exception):
    """Redis can't be reached, or couldn't a moment ago. The message is the type of the fault."""


class Shared:
    """One Lua script on one server, for one event loop; connects with the first call.

    `changed` is called once with False and the fault's name when Redis goes away, and once with True when it is back.
    """

    def __init__(self, url: str, script: str, changed: Callable[[bool, str], None]) -> None:
        self._url = url
        self._source = resources.files(__package__).joinpath(script).read_text(encoding="utf-8")
        self._changed = changed
        self._script: AsyncScript | None = None
        self._client: Redis | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._fault = ""
        self._ask_again_at = 0.0

    async def run(self, key: str, arguments: Sequence[Value]) -> Reply:
        """The script's reply. Raises AwayError at once while an outage is remembered, else within half a second."""
        self._raise_if_away()
        async with self._slots:
            # Those who waited for a slot hear of the outage from those who had one.
            self._raise_if_away()
            if self._fault:
                self._ask_again_at = time.monotonic() + RETRY_AFTER_S
            try:
                # Only the time on the wire counts: a queue of our own is no outage.
                async with asyncio.timeout(TIMEOUT_S):
                    reply = cast("Reply", await self._connected()(keys=[key], args=arguments))
            except (RedisError, OSError) as fault:
                self._went_away(type(fault).__name__)
                raise AwayError(self._fault) from fault
        if self._fault:
            self._fault = ""
            self._changed(True, "")  # noqa: FBT003 - the callback's one meaning
        return reply

    async def close(self) -> None:
        """Give the connections back. A later call connects again."""
        if self._client is not None:
            await self._client.aclose()
            self._client = self._script = None

    def _raise_if_away(self) -> None:
        if self._fault and time.monotonic() < self._ask_again_at:
            raise AwayError(self._fault)

    def _went_away(self, fault: str) -> None:
        self._ask_again_at = time.monotonic() + RETRY_AFTER_S
        if not self._fault:
            self._changed(False, fault)  # noqa: FBT003
        self._fault = fault

    def _connected(self) -> AsyncScript:
        if self._script is None:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # A connection that idled through a restart of the server is found broken once. A timeout isn't
                # repeated: the script may have run.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
            self._client = Redis.from_pool(pool)
            self._script = self._client.register_script(self._source)
        return self._script
