"""Builds the judges, and the gateway in front of the one that costs money."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from qa_worker.adapters.eventloop import EventLoop, JudgeOnLoop
from qa_worker.adapters.offline.judge import RulesJudge
from qa_worker.adapters.postgres.budget import PostgresBudget
from qa_worker.adapters.redis.gate import RedisGate
from qa_worker.adapters.redis.limiter import RedisLimiter
from qa_worker.application.gateway import SERVICE, Gateway
from qa_worker.application.judging import Judge
from qa_worker.application.limits import Brakes, BucketStatus, GateStatus
from qa_worker.application.pacing import room_for
from qa_worker.application.voting import VotingJudge
from qa_worker.bootstrap.clock import SystemClock
from qa_worker.domain.rubric import JudgeKind
from qa_worker.settings import Settings

_MICRO = 1_000_000
# Sent is what is used until the next dispatch and a little more, so that a late one leaves no gap. Where dispatches come
# late all the time (a machine that is short of CPU) it is more, up to what may be booked ahead.
_SPARE_S = 0.5
_AT_MOST_AHEAD_S = 2.0
# As the client knows them; Valkey's own names mean the same.
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}


def budget(chosen: Settings, engine: Engine) -> PostgresBudget:
    """The daily budgets of the settings."""
    return PostgresBudget(
        engine,
        overall=_micro_usd(chosen.daily_budget_usd),
        each_workspace=_micro_usd(chosen.workspace_daily_budget_usd),
        now=SystemClock().now,
    )


def shared_limits(chosen: Settings, redis_url: str) -> tuple[RedisGate, RedisLimiter]:
    """The breaker and the limits that all workers share."""
    # A probe that got no answer has ended by its deadline; its lease is for a prober that died.
    probe_lease_s = chosen.judge_deadline_s + 5
    gate = RedisGate(
        redis_url,
        threshold=chosen.breaker_threshold,
        recovery_s=chosen.breaker_recovery_s,
        max_recovery_s=chosen.breaker_max_recovery_s,
        probe_lease_s=probe_lease_s,
    )
    caps = {
        "requests": chosen.max_requests_per_minute,
        "input_tokens": chosen.max_input_tokens_per_minute,
        "output_tokens": chosen.max_output_tokens_per_minute,
    }
    return gate, RedisLimiter(redis_url, caps=caps, processes=chosen.worker_processes, probe_lease_s=probe_lease_s)


def redis_url(chosen: Settings, broker_url: str | None = None) -> str:
    """Where limits and breaker are shared: QA_REDIS_URL, or else the broker where that is a Redis."""
    given = broker_url or chosen.broker_url.get_secret_value()
    if chosen.redis_url is not None:
        given = chosen.redis_url.get_secret_value()
    scheme, _, rest = given.partition("://")
    known = _SCHEMES.get(scheme)
    return f"{known}://{rest}" if known else "redis://127.0.0.1:6379/0"


class SharedPace:
    """Implements `Pace` by what all workers share. Starts its event loop with the first question."""

    def __init__(self, chosen: Settings) -> None:
        self._loop = EventLoop()
        self._gate, self._limiter = shared_limits(chosen, redis_url(chosen))
        self._within_s = chosen.dispatch_every_s + _SPARE_S
        self._asked_at = time.monotonic()

    def room(self, models: Collection[str]) -> Mapping[str, int]:
        """See the port."""
        now = time.monotonic()
        late_s, self._asked_at = min(now - self._asked_at + _SPARE_S, _AT_MOST_AHEAD_S), now
        within_s = max(self._within_s, late_s)
        return self._loop.run(room_for(models, gate=self._gate, limiter=self._limiter, within_s=within_s))

    def close(self) -> None:
        """Give the connections back."""
        self._loop.run(self._gate.close())
        self._loop.run(self._limiter.close())
        self._loop.close()


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """What holds requests back right now: the breaker, and of each model its buckets and what else slows it."""

    breaker: GateStatus
    buckets: Mapping[str, tuple[BucketStatus, ...]]
    brakes: Mapping[str, Brakes] = field(default_factory=dict)


def gateway_status(chosen: Settings, broker_url: str, models: Iterable[str]) -> GatewayStatus:
    """For people: the breaker, and what holds these models back. Asked from outside the workers."""
    models = list(models)
    loop = EventLoop()
    gate, limiter = shared_limits(chosen, redis_url(chosen, broker_url))

    async def ask() -> GatewayStatus:
        try:
            buckets = {model: await limiter.status(model) for model in models}
            brakes = {model: await limiter.brakes(model) for model in models}
            return GatewayStatus(await gate.status(SERVICE), buckets, brakes)
        finally:
            await gate.close()
            await limiter.close()

    try:
        return loop.run(ask())
    finally:
        loop.close()


def judges(chosen: Settings, engine: Engine) -> tuple[dict[JudgeKind, Judge], Callable[[], None]]:
    """The judges that this process can ask, and what closes them."""
    available: dict[JudgeKind, Judge] = {JudgeKind.RULES: RulesJudge()}
    if chosen.anthropic_api_key is None:
        return available, lambda: None
    # The SDK costs 1.5 s of CPU and 85 MB to import, which a process that never asks Claude need not pay.
    from qa_worker.adapters.claude.client import Timeouts  # noqa: PLC0415
    from qa_worker.adapters.claude.judge import AsyncClaudeJudge  # noqa: PLC0415
    from qa_worker.adapters.claude.metered import MeteredClaudeJudge  # noqa: PLC0415

    claude = AsyncClaudeJudge(
        chosen.anthropic_api_key.get_secret_value(),
        base_url=chosen.anthropic_base_url,
        timeouts=Timeouts(
            connect_s=chosen.judge_connect_timeout_s,
            read_s=chosen.judge_read_timeout_s,
            total_s=chosen.judge_deadline_s,
        ),
    )
    gate, limiter = shared_limits(chosen, redis_url(chosen))
    gateway = Gateway(
        MeteredClaudeJudge(claude),
        budget=budget(chosen, engine),
        gate=gate,
        limiter=limiter,
        deadline_s=chosen.judge_deadline_s,
    )
    loop = EventLoop()
    available[JudgeKind.CLAUDE] = JudgeOnLoop(VotingJudge(gateway), loop)

    def close() -> None:
        loop.run(claude.aclose())
        loop.run(gate.close())
        loop.run(limiter.close())
        loop.close()

    return available, close


def _micro_usd(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * _MICRO)
