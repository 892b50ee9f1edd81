"""A provider's token buckets, and an endless backlog that is sent through the model of the limiter: no clock, no sleep."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from qa_worker.domain import bucket as model
from qa_worker.domain.bucket import Amounts, Pacing

_ON_THE_WAY_S = 0.01
_LEARN_EVERY_S = 0.25
_RETRY_AFTER_S = 2.0


@dataclass(slots=True)
class Provider:
    """Takes requests and input at the start and output at the end of an answer, as the real one does.

    Limits are a minute; `holds_s` is the size of its buckets in seconds of rate; `others` is the part of its limits that
    other programs use. `remaining` in a header is as of the end of the answer, or (`early`) of its start.
    """

    limits: Amounts
    holds_s: float = 60.0
    others: float = 0.0
    early: bool = False
    levels: list[float] = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.levels = [self.holds_s * limit / 60 for limit in self.limits]

    def now(self, at: float) -> None:
        for meter, limit in enumerate(self.limits):
            refilled = self.levels[meter] + (at - self.at) * limit / 60 * (1 - self.others)
            self.levels[meter] = min(self.holds_s * limit / 60, refilled)
        self.at = at

    def takes(self, used: Amounts) -> bool:
        if self.levels[0] < used[0] or self.levels[1] < used[1] or self.levels[2] <= 0:
            return False
        self.levels[0] -= used[0]
        self.levels[1] -= used[1]
        return True

    def left(self) -> Amounts:
        requests, input_tokens, output_tokens = (max(0.0, level) for level in self.levels)
        return float(int(requests)), float(round(input_tokens, -3)), float(round(output_tokens, -3))


@dataclass(slots=True)
class Result:
    """What happened. `asks` counts calls of `reserve`, `held` those that were told to come back another time."""

    sent: int = 0
    refused: int = 0
    answered: int = 0
    asks: int = 0
    held: int = 0

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.sent)


class Backlog:
    """`slots` workers that are never out of work, for `seconds`."""

    def __init__(
        self, provider: Provider, pacing: Pacing, *, need: Amounts, used: Amounts, latency_s: float, slots: int
    ) -> None:
        self.provider = provider
        self.pacing = pacing
        self.need, self.used = need, used
        self.latency_s = latency_s
        self.result = Result()
        self._state = model.opened(pacing, 0.0)
        self._random = random.Random(1)  # noqa: S311 - the same traffic each time
        self._numbers = count()
        self._learnt_at = -1.0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        for _ in range(slots):
            self._at(self._random.random() / 2, self._ask)

    def run(self, seconds: float) -> Result:
        while self._events[0][0] <= seconds:
            at, _, act = heapq.heappop(self._events)
            act(at)
        return self.result

    def _at(self, at: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), act))

    def _on_the_way(self) -> float:
        return self._random.expovariate(1 / _ON_THE_WAY_S)

    def _ask(self, now: float) -> None:
        self.result.asks += 1
        kept_s = self.pacing.kept_s
        self._state, turn = model.reserve(self._state, now, self.need, share=1.0, pacing=self.pacing, kept_s=kept_s)
        self.result.held += not turn.granted
        self._at(now + turn.wait_s, self._leave if turn.granted else self._ask)

    def _next(self, now: float) -> None:
        self._ask(now)

    def _leave(self, now: float) -> None:
        if self._state.paused_until > now:
            self._state = model.settle(self._state, now, self.need, self.pacing)
            self._at(now, self._ask)
        else:
            self._at(now + self._on_the_way(), self._arrive)

    def _arrive(self, now: float) -> None:
        self.result.sent += 1
        self.provider.now(now)
        if not self.provider.takes(self.used):
            self.result.refused += 1
            self._at(now + self._on_the_way(), lambda at: self._hear_no(at, self.provider.left()))
            return
        left = self.provider.left()
        self._at(now + self.latency_s * self._random.uniform(0.8, 1.2), lambda at: self._finish(at, left))

    def _finish(self, now: float, left: Amounts) -> None:
        self.provider.now(now)
        self.provider.levels[2] -= self.used[2]
        self.result.answered += 1
        told = left if self.provider.early else self.provider.left()
        self._at(now + self._on_the_way(), lambda at: self._hear(at, told))

    def _hear(self, now: float, left: Amounts) -> None:
        requests, input_tokens, output_tokens = (r - u for r, u in zip(self.need, self.used, strict=True))
        self._state = model.settle(self._state, now, (requests, input_tokens, output_tokens), self.pacing)
        if now - self._learnt_at > _LEARN_EVERY_S:
            self._learnt_at = now
            self._state = model.learn(self._state, now, self.provider.limits, left, self.pacing)
        self._next(now)

    def _hear_no(self, now: float, left: Amounts) -> None:
        self._state = model.settle(self._state, now, (0.0, self.need[1], self.need[2]), self.pacing)
        self._state = model.learn(self._state, now, self.provider.limits, left, self.pacing)
        self._state = model.pause(self._state, now, _RETRY_AFTER_S)
        self._next(now)


class Dispatched(Backlog):
    """The same backlog, sent by a dispatcher that looks about every `every_s` and sends what there is room for."""

    def __init__(
        self, provider: Provider, pacing: Pacing, *, need: Amounts, used: Amounts, latency_s: float, every_s: float
    ) -> None:
        super().__init__(provider, pacing, need=need, used=used, latency_s=latency_s, slots=0)
        self._every_s = every_s
        self._at(0.0, self._look)

    def _look(self, now: float) -> None:
        room = model.room(self._state, now, within_s=self._every_s + 0.5, share=1.0, pacing=self.pacing)
        for _ in range(math.ceil(room)):
            self._at(now + self._random.uniform(0.02, 0.3), self._ask)
        self._at(now + self._every_s * self._random.uniform(0.8, 1.3), self._look)

    def _next(self, now: float) -> None:
        """Who is done is followed by whom the dispatcher sends."""
