"""Builds what raises alerts: rules, matches and incidents. What sends them is built elsewhere."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Engine

from qa_worker.adapters.eventloop import EventLoop
from qa_worker.adapters.postgres.vitals import PostgresVitals
from qa_worker.adapters.redis.gate import RedisGate
from qa_worker.application.alerting import SpentShare
from qa_worker.application.forget_old_alerts import forget_old_alerts
from qa_worker.application.gateway import SERVICE
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.application.raise_alerts import Raising, raise_alerts, raise_due_alerts
from qa_worker.application.watch_health import Watching, watch_health
from qa_worker.bootstrap.clock import StructlogContext, SystemClock
from qa_worker.bootstrap.gateway import budget, redis_url, shared_limits
from qa_worker.domain.alert_rule import RuleKind
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.outcome import Outcome
from qa_worker.settings import Settings

log = structlog.get_logger(__name__)

# A nudge is folded within milliseconds; what is older than this had none, or lost it.
_UNFOLDED_FOR_S = 3.0
_HOLDS_BACK = frozenset({"open", "probing"})


@dataclass(frozen=True, slots=True)
class AlertJobs:
    """What the tasks about alerts call."""

    raise_for: Callable[[uuid.UUID, uuid.UUID | None], Outcome]
    raise_due: Callable[[], int]
    watch: Callable[[], int]
    forget: Callable[[], int]
    close: Callable[[], None]


def alert_jobs(chosen: Settings, engine: Engine, uow: UnitOfWorkFactory) -> AlertJobs:
    """Everything on one engine; opens nothing else before it is needed."""
    clock = SystemClock()
    raising = Raising(
        uow=uow,
        clock=clock,
        context=StructlogContext(),
        public_url=chosen.public_url,
        max_attempts=chosen.alert_max_attempts,
    )
    breaker = _Breaker(chosen)
    spending = budget(chosen, engine).spending

    def spent_shares() -> Sequence[SpentShare]:
        # A cap of nothing is spent from the beginning.
        return [
            SpentShare(one.workspace, one.spent / one.cap if one.cap else 1.0)
            for one in spending()
            if one.cap is not None
        ]

    def raise_for(rule_id: uuid.UUID, agent_id: uuid.UUID | None) -> Outcome:
        return raise_alerts(rule_id=rule_id, agent_id=agent_id, raising=raising)

    watching = Watching(
        uow=uow,
        clock=clock,
        vitals=PostgresVitals(engine),
        breaker_open=breaker.is_open,
        spent_shares=spent_shares,
        failed=_not_watched,
    )
    return AlertJobs(
        raise_for=raise_for,
        raise_due=partial(raise_due_alerts, raising=raising, unfolded_for_s=_UNFOLDED_FOR_S),
        watch=partial(watch_health, watching=watching),
        forget=partial(forget_old_alerts, uow=uow, clock=clock, keep_days=chosen.alert_retention_days),
        close=breaker.close,
    )


class _Breaker:
    """Asks the gate that all workers share; a process that never asks has no event loop for it."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self._loop = EventLoop()
        self._gate: RedisGate | None = None
        self._lock = threading.Lock()

    def is_open(self) -> bool:
        """True while requests are held back, as far as Redis knows."""
        with self._lock:
            if self._gate is None:
                self._gate, _ = shared_limits(self._chosen, redis_url(self._chosen))
        return self._loop.run(self._gate.status(SERVICE)).state in _HOLDS_BACK

    def close(self) -> None:
        """Give the connection back."""
        if self._gate is not None:
            self._loop.run(self._gate.close())
        self._loop.close()


def _not_watched(kind: RuleKind, error: StoreUnavailable) -> None:
    log.warning("health_not_watched", kind=kind.value, reason=str(error))
