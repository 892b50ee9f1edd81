"""The circuit breaker that all workers share: one hash for each service, one atomic script (`gate.lua`).

Successes are gathered for a quarter of a second and told in one call, in their order before the next failure: a service
that works costs one question for a request, not two. While Redis is away each process decides alone (`local.py`), and
begins with what it last heard.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from qa_worker.adapters.redis.connection import AwayError, Reply, Shared, Value
from qa_worker.adapters.redis.local import LocalBreaker
from qa_worker.application.limits import Admission, GateStatus, Verdict
from qa_worker.domain import breaker as rules_of
from qa_worker.domain.breaker import BreakerRules

log = structlog.get_logger(__name__)

_GATHER_S = 0.25


@dataclass(frozen=True, slots=True)
class _Ticket(Admission):
    """An admission that knows in which epoch, and by whom, it was given: late reports are told apart by it."""

    epoch: int = 0
    shared: bool = True


@dataclass(slots=True)
class _Gathered:
    epoch: int
    successes: int = 0
    told_at: float = 0.0


class RedisGate:
    """Implements `Gate` on one event loop. The parameters are those of `BreakerRules`."""

    def __init__(  # noqa: PLR0913 - settings, by name
        self,
        url: str,
        *,
        threshold: int = 5,
        recovery_s: float = 60.0,
        max_recovery_s: float = 600.0,
        probe_lease_s: float = 65.0,
        ask_again_s: float = 5.0,
        step_s: float = 2.5,
        server_clock: Callable[[], float] | None = None,
    ) -> None:
        """`server_clock` stands in for the server's in tests."""
        self._rules = BreakerRules(
            threshold=threshold,
            recovery_s=recovery_s,
            max_recovery_s=max_recovery_s,
            probe_lease_s=probe_lease_s,
            ask_again_s=ask_again_s,
            step_s=step_s,
        )
        numbers = (threshold, recovery_s, max_recovery_s, probe_lease_s, ask_again_s, step_s)
        self._constants: list[Value] = [*map(repr, numbers), ",".join(map(repr, self._rules.steps))]
        self._server_clock = server_clock
        self._redis = Shared(url, "gate.lua", _changed)
        self._local: dict[str, LocalBreaker] = {}
        self._closed_until: dict[str, float] = {}
        self._gathered: dict[str, _Gathered] = {}

    async def admit(self, service: str) -> Admission:
        """See the port."""
        lease = uuid.uuid4().hex
        try:
            open_for_s, probe, share, epoch = await self._ask(service, "admit", lease)
        except AwayError:
            given = self._own(service).admit(time.monotonic(), lease)
            return _Ticket(given.open_for_s, given.probe, given.share, given.epoch, shared=False)
        self._closed_until[service] = time.monotonic() + float(open_for_s)
        return _Ticket(float(open_for_s), _string(probe), float(share), int(epoch))

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        """See the port. `admission` is the object that `admit` gave."""
        if not isinstance(admission, _Ticket) or (verdict is Verdict.SILENT and not admission.probe):
            return
        outcomes = self._outcomes(service, verdict, admission)
        if not outcomes and not admission.probe:
            return
        if not admission.shared:
            self._own(service).report(
                time.monotonic(), verdict, epoch=admission.epoch, probe=admission.probe, outcomes=outcomes
            )
            return
        try:
            await self._ask(service, "report", verdict.value, admission.epoch, admission.probe, outcomes)
        except AwayError:
            # It left under the shared gate. A probe's lease runs out; the process counts what it admits itself.
            return

    async def status(self, service: str) -> GateStatus:
        """See the port."""
        try:
            state, open_for_s, failures, share = await self._ask(service, "status")
        except AwayError:
            own, now = self._own(service), time.monotonic()
            return GateStatus(own.state(now), own.open_for_s(now), own.failures, own.share(now), shared=False)
        return GateStatus(_string(state), float(open_for_s), int(failures), float(share), shared=True)

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.close()

    async def _ask(self, service: str, act: str, *operands: Value) -> Reply:
        now = "" if self._server_clock is None else repr(self._server_clock())
        return await self._redis.run(f"qa:gate:{{{service}}}", [act, now, *self._constants, *operands])

    def _outcomes(self, service: str, verdict: Verdict, ticket: _Ticket) -> str:
        """The outcomes to tell now, oldest first; none while successes are gathered."""
        if ticket.probe or verdict is Verdict.SILENT:
            return ""
        kept = self._gathered.get(service)
        if kept is None or kept.epoch != ticket.epoch:
            kept = self._gathered[service] = _Gathered(ticket.epoch)
        now = time.monotonic()
        if verdict is Verdict.UP:
            kept.successes += 1
            if ticket.shared and now - kept.told_at < _GATHER_S:
                return ""
        told = rules_of.UP * min(kept.successes, rules_of.SEEN * self._rules.threshold)
        kept.successes, kept.told_at = 0, now
        return told + (rules_of.DOWN if verdict is Verdict.DOWN else "")

    def _own(self, service: str) -> LocalBreaker:
        own = self._local.get(service)
        if own is None:
            own = self._local[service] = LocalBreaker(service, self._rules)
        closed_until = self._closed_until.pop(service, 0.0)
        if closed_until > time.monotonic():
            own.hold(closed_until)
        return own


def _changed(shared: bool, fault: str) -> None:  # noqa: FBT001 - a callback
    if shared:
        log.info("gate_shared")
    else:
        log.warning("gate_local", error=fault)


def _string(value: bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
