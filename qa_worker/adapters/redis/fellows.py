"""How many share the provider's limits: what this one's part of them is while Redis is away."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from qa_worker.adapters.redis.connection import AwayError, Shared

KEY = "qa:limits:fellows"
_TELL_EVERY_S = 10.0
_GONE_AFTER_S = 300
"""Longer than a quiet moment: whoever asks nothing for a while may be back when Redis is away."""


class Fellows:
    """Counts, on one event loop, all that told of themselves lately; `count` is `assumed` until Redis was asked once."""

    def __init__(self, url: str, *, assumed: int, server_clock: Callable[[], float] | None = None) -> None:
        """`server_clock` stands in for the server's in tests."""
        self.count = assumed
        self._redis = Shared(url, "fellows.lua", _unheard)
        self._server_clock = server_clock
        self._id = uuid.uuid4().hex
        self._tell_again_at = 0.0

    async def tell(self) -> None:
        """Say that we are one of them and hear how many there are; every ten seconds, otherwise nothing is done."""
        now = time.monotonic()
        if now < self._tell_again_at:
            return
        self._tell_again_at = now + _TELL_EVERY_S
        at = "" if self._server_clock is None else repr(self._server_clock())
        try:
            (count,) = await self._redis.run(KEY, [at, self._id, _GONE_AFTER_S])
        except AwayError:
            return  # the last count holds
        self.count = int(count)

    async def close(self) -> None:
        """Give the connection back."""
        await self._redis.close()


def _unheard(shared: bool, fault: str) -> None:  # noqa: FBT001 - a callback
    """Nothing: the limiter itself tells when Redis goes away."""
