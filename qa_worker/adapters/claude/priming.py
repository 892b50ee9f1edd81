"""One request first, the others after it, where all of them share a prefix that the provider caches.

An entry of the cache can be read only once the answer to the request that wrote it has begun: fifty requests that start
together write it fifty times, at 1.25 times the price of plain input instead of a tenth of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from qa_worker.adapters.claude.request import Prefix, cached_prefix
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.domain.failure import Failure

WARM_FOR_S = 240.0
"""An entry lives for 5 minutes from the start of the request that wrote or last read it; one minute is left as margin."""

PATIENCE_S = 3.0
"""Nobody waits longer than this for another's answer: a dearer answer is better than a late one."""

_MAX_PREFIXES = 1024


class Priming:
    """Which prefixes are warm, and whose turn it is where one isn't. Belongs to one event loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        warm_for_s: float = WARM_FOR_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._clock = clock
        self._warm_for_s = warm_for_s
        self._patience_s = patience_s
        self._warm_until: dict[Prefix, float] = {}
        self._turns: WeakValueDictionary[Prefix, asyncio.Lock] = WeakValueDictionary()

    def will_be_read(self, request: JudgeRequest) -> bool:
        """Whether the static part will probably come from the cache: it is warm, or another request goes first."""
        prefix = cached_prefix(request)
        return prefix is not None and (self._is_warm(prefix) or prefix in self._turns)

    async def in_turn(self, request: JudgeRequest, ask: Callable[[], Awaitable[JudgeAnswer]]) -> JudgeAnswer:
        """The answer of `ask`, which is called at once, or after the request that goes first.

        If that one fails, the next goes first.
        """
        prefix = cached_prefix(request)
        if prefix is None:
            return await ask()
        if not self._is_warm(prefix):
            turn = self._turns.setdefault(prefix, asyncio.Lock())
            if await self._got(turn):
                try:
                    if not self._is_warm(prefix):
                        return await self._noted(prefix, ask)
                finally:
                    turn.release()
        return await self._noted(prefix, ask)

    async def _got(self, turn: asyncio.Lock) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                return await turn.acquire()
        except TimeoutError:
            return False

    async def _noted(self, prefix: Prefix, ask: Callable[[], Awaitable[JudgeAnswer]]) -> JudgeAnswer:
        started = self._clock()
        answer = await ask()
        # A refused or cut answer has read or written the cache too. Where nothing is cached, waiting would be no use.
        if answer.usage.prompt_tokens > 0 or not isinstance(answer.result, Failure):
            self._make_room()
            self._warm_until[prefix] = max(started + self._warm_for_s, self._warm_until.get(prefix, 0.0))
        return answer

    def _is_warm(self, prefix: Prefix) -> bool:
        return self._warm_until.get(prefix, 0.0) > self._clock()

    def _make_room(self) -> None:
        if len(self._warm_until) >= _MAX_PREFIXES:
            now = self._clock()
            warm = {prefix: until for prefix, until in self._warm_until.items() if until > now}
            # prefixes that are all warm and that many: forgetting them costs a short wait each
            self._warm_until = warm if len(warm) < _MAX_PREFIXES else {}
