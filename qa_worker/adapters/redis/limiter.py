"""The provider's limits, shared by all workers through one atomic script (`limiter.lua`, modelled by `domain/bucket.py`).

A permit may be booked up to `book_ahead_s` ahead: `reserve` then waits for its turn before it returns. That is one call
to Redis for a request, in order of arrival, where polling needs several and lets the lucky pass. A turn that comes while
the provider has us paused is given back and asked for again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import structlog

from qa_worker.adapters.redis.connection import AwayError, Reply, Shared, Value
from qa_worker.adapters.redis.fellows import Fellows
from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import Brakes, BucketStatus, Need, NoRoom, Permit
from qa_worker.domain import bucket as model_of
from qa_worker.domain.bucket import METERS, Amounts, Bucket, Known, Pacing, Turn
from qa_worker.domain.evaluation import Usage

log = structlog.get_logger(__name__)

START = {"requests": 1000, "input_tokens": 1_000_000, "output_tokens": 200_000}
"""Assumed until the first answer tells: half the tokens of the provider's lowest paid tier (Start)."""
LONGEST_PAUSE_S = 3600.0
_ASK_AGAIN_S = 5.0
"""A probe of the spend limit that came back without an answer makes room for the next after this."""
_LEAST_SHARE = 0.01
_LEARN_EVERY_S = 0.25


class RedisLimiter:
    """Implements `Limiter` on one event loop. `caps` and `start` are limits a minute by meter.

    `processes`: among how many the limits are shared, for the part that this one takes while Redis is away and before
    Redis has told how many there are. `ramp_s`: how long the rate takes to double while it grows into limits just learnt.
    `probe_lease_s`: longer than any request takes.
    """

    def __init__(  # noqa: PLR0913 - settings, by name
        self,
        url: str,
        *,
        caps: Mapping[str, int | None],
        burst_s: float = 10.0,
        start: Mapping[str, int] = START,
        ramp_s: float = 1.5,
        book_ahead_s: float = 2.0,
        probe_lease_s: float = 65.0,
        processes: int = 4,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        server_clock: Callable[[], float] | None = None,
    ) -> None:
        """`server_clock` stands in for the server's in tests."""
        self._caps: Known = _amounts(caps)
        self._pacing = Pacing(
            start=_lowest(_certain(_amounts(start)), self._caps),
            burst_s=burst_s,
            double_s=ramp_s,
            book_ahead_s=book_ahead_s,
            probe_lease_s=probe_lease_s,
        )
        self._constants: list[Value] = [str(value).encode() for value in _flat(self._pacing)]
        self._sleep = sleep
        self._server_clock = server_clock
        self._redis = Shared(url, "limiter.lua", self._changed)
        self._fellows = Fellows(url, assumed=processes, server_clock=server_clock)
        # By model, and by the number of those who share its limits.
        self._local: dict[tuple[str, int], Bucket] = {}
        self._limits: dict[str, Known] = {}
        self._learnt_at: dict[str, float] = {}
        self._paused_until: dict[str, float] = {}
        self._capped_until: dict[str, float] = {}

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit | NoRoom:
        """See the port. Waits for a turn that was booked ahead; cancelled meanwhile, it gives the room back."""
        amounts = (float(need.requests), float(need.input_tokens), float(need.output_tokens))
        while True:
            kept_s = self._pacing.kept_s if can_wait else 0.0
            turn, shared = await self._book(model, amounts, max(share, _LEAST_SHARE), kept_s)
            if not turn.granted:
                return NoRoom(turn.wait_s, turn.capped)
            permit = Permit(model, need, shared, turn.probe)
            if turn.wait_s <= 0:
                return permit
            try:
                await self._sleep(turn.wait_s)
            except asyncio.CancelledError:
                await self.settle(permit, None)
                raise
            stopped_until = self._paused_until.get(model, 0.0)
            if not permit.probe:
                stopped_until = max(stopped_until, self._capped_until.get(model, 0.0))
            if time.monotonic() >= stopped_until:
                return permit
            await self.settle(permit, None)

    async def settle(self, permit: Permit, usage: Usage | None) -> None:
        """See the port. Cached reads don't count for the provider's input meter (docs, rate-limits); writes do."""
        if permit.probe:
            billed = usage is not None and usage != Usage()
            await self._cap(permit, 0.0 if billed else _ASK_AGAIN_S)
        change = _change(permit.need, usage)
        if not any(change):
            return
        if not permit.shared:
            self._keep(permit.model, lambda state, now: model_of.settle(state, now, change, self._own))
            return
        try:
            await self._ask(permit.model, "settle", *change)
        except AwayError:
            # The shared bucket refills by itself; what isn't given back is a moment of its rate.
            return
        await self._fellows.tell()

    async def pause(self, model: str, seconds: float) -> None:
        """See the port. Bounded by LONGEST_PAUSE_S."""
        if seconds <= 0:
            return
        seconds = min(seconds, LONGEST_PAUSE_S)
        self._paused_until[model] = max(self._paused_until.get(model, 0.0), time.monotonic() + seconds)
        try:
            await self._ask(model, "pause", seconds)
        except AwayError:
            self._keep(model, lambda state, now: model_of.pause(state, now, seconds))

    async def ease(self, model: str) -> None:
        """See the port."""
        try:
            await self._ask(model, "ease")
        except AwayError:
            self._keep(model, model_of.ease)

    async def cap(self, permit: Permit, seconds: float) -> None:
        """See the port. Logged once for each such pause, whatever number of requests found the limit."""
        if await self._cap(permit, seconds):
            log.error("spend_cap_reached", model=permit.model, asked_again_in_s=seconds)

    async def learn(self, model: str, limits: RateLimits) -> None:
        """See the port. Limits that are known already are told on four times a second, for what is left of them."""
        told: Known = (limits.requests, limits.input_tokens, limits.output_tokens)
        known: Known = _capped(told, self._caps)
        if known == (None, None, None):
            return
        now = time.monotonic()
        if self._limits.get(model) == known and now - self._learnt_at.get(model, 0.0) < _LEARN_EVERY_S:
            return
        self._limits[model], self._learnt_at[model] = known, now
        left: Known = (limits.requests_left, limits.input_tokens_left, limits.output_tokens_left)
        try:
            await self._ask(model, "learn", *map(_text, known), *map(_text, left))
        except AwayError:
            self._keep(model, lambda state, at: model_of.learn(state, at, self._part(known), left, self._own))

    async def room(self, model: str, *, within_s: float, share: float = 1.0) -> float | None:
        """See the port."""
        try:
            (more,) = await self._ask(model, "room", within_s, max(share, _LEAST_SHARE), self._pacing.kept_s)
        except AwayError:
            return None
        return float(more)

    async def status(self, model: str) -> tuple[BucketStatus, ...]:
        """See the port. `source` is learnt, settings (a cap binds), assumed, or local while Redis is away."""
        try:
            values = [float(value) for value in (await self._ask(model, "status"))[:9]]
        except AwayError:
            state = model_of.filled(self._own_bucket(model), time.monotonic(), self._own)
            return tuple(map(BucketStatus, METERS, state.limits, state.levels, ("local",) * len(METERS)))
        limits, levels, learnt = values[0:3], values[3:6], values[6:9]
        sources = [
            "settings" if cap is not None and limit >= cap else "learnt" if known else "assumed"
            for limit, known, cap in zip(limits, learnt, self._caps, strict=True)
        ]
        return tuple(map(BucketStatus, METERS, limits, levels, sources))

    async def brakes(self, model: str) -> Brakes:
        """See the port."""
        try:
            capped, load = map(_string, (await self._ask(model, "status"))[9:])
        except AwayError:
            own, now = self._own_bucket(model), time.monotonic()
            capped_for_s = max(0.0, own.capped_until - now) if own.capped_until else None
            return Brakes(capped_for_s, model_of.load_at(own, now))
        return Brakes(float(capped) if capped else None, float(load))

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.close()
        await self._fellows.close()

    async def _cap(self, permit: Permit, seconds: float) -> bool:
        """Whether that was new."""
        try:
            return bool((await self._ask(permit.model, "cap", seconds, int(permit.probe)))[0])
        except AwayError:
            state, new = model_of.cap(self._own_bucket(permit.model), time.monotonic(), seconds, probe=permit.probe)
            self._keep(permit.model, lambda _state, _now: state)
            return new

    async def _book(self, model: str, need: Amounts, share: float, kept_s: float) -> tuple[Turn, bool]:
        try:
            granted, wait_s, _, capped_s, probe = await self._ask(model, "reserve", *need, share, kept_s)
        except AwayError:
            state, turn = model_of.reserve(
                self._own_bucket(model), time.monotonic(), need, share=share, pacing=self._own, kept_s=kept_s
            )
            self._keep(model, lambda _state, _now: state)
            return turn, False
        capped = not granted and float(capped_s) > 0
        return Turn(granted=bool(granted), wait_s=float(wait_s), capped=capped, probe=bool(probe)), True

    async def _ask(self, model: str, act: str, *operands: Value) -> Reply:
        now = "" if self._server_clock is None else repr(self._server_clock())
        reply = await self._redis.run(f"qa:limits:{{{model}}}", [act, now, *self._constants, *operands])
        if act not in ("status", "room"):
            # Another process may have been told to stop: every answer says so.
            at = time.monotonic()
            self._paused_until[model], self._capped_until[model] = at + float(reply[2]), at + float(reply[3])
        return reply

    def _keep(self, model: str, change: Callable[[Bucket, float], Bucket]) -> None:
        self._local[model, self._fellows.count] = change(self._own_bucket(model), time.monotonic())

    def _own_bucket(self, model: str) -> Bucket:
        """This process's part of the limits, as last known."""
        state = self._local.get((model, self._fellows.count))
        if state is None:
            now = time.monotonic()
            state = model_of.opened(self._own, now)
            known = self._part(self._limits.get(model, (None, None, None)))
            state = model_of.learn(state, now, known, (None, None, None), self._own)
            self._local[model, self._fellows.count] = state
        return state

    @property
    def _own(self) -> Pacing:
        requests, input_tokens, output_tokens = self._pacing.start
        parts = self._fellows.count
        return replace(self._pacing, start=(requests / parts, input_tokens / parts, output_tokens / parts))

    def _part(self, limits: Known) -> Known:
        parts = self._fellows.count
        requests, input_tokens, output_tokens = (None if limit is None else limit / parts for limit in limits)
        return requests, input_tokens, output_tokens

    def _changed(self, shared: bool, fault: str) -> None:  # noqa: FBT001 - a callback
        if shared:
            log.info("limits_shared")
        else:
            log.warning("limits_local", error=fault, shared_by=self._fellows.count)


def _change(need: Need, usage: Usage | None) -> Amounts:
    if usage is None:
        return float(need.requests), float(need.input_tokens), float(need.output_tokens)
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return 0.0, float(need.input_tokens - usage.input_tokens - written), float(need.output_tokens - usage.output_tokens)


def _amounts(by_meter: Mapping[str, int | None]) -> Known:
    requests, input_tokens, output_tokens = (by_meter.get(meter) for meter in METERS)
    return requests, input_tokens, output_tokens


def _capped(limits: Known, caps: Known) -> Known:
    # A limit of zero would be divided by; one a minute is as good as none.
    requests, input_tokens, output_tokens = (
        None if limit is None else max(1.0, limit if cap is None else min(limit, cap))
        for limit, cap in zip(limits, caps, strict=True)
    )
    return requests, input_tokens, output_tokens


def _lowest(start: Amounts, caps: Known) -> Amounts:
    return _certain(_capped(start, caps))


def _certain(amounts: Known) -> Amounts:
    requests, input_tokens, output_tokens = amounts
    if requests is None or input_tokens is None or output_tokens is None:
        raise ValueError(f"start needs a limit for each of {', '.join(METERS)}")
    return requests, input_tokens, output_tokens


def _string(value: bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)


def _flat(pacing: Pacing) -> list[float]:
    p = pacing
    return [
        p.burst_s,
        p.double_s,
        p.book_ahead_s,
        p.use,
        p.slack_s,
        p.peak,
        p.regrow,
        p.idle_s,
        p.probe_lease_s,
        *p.start,
    ]
