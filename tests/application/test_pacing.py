"""How much a dispatcher may send, by what gate and limiter say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from qa_worker.application.limits import Admission, GateStatus, Need, Permit, Verdict
from qa_worker.application.pacing import PROBES, room_for
from tests.fakes import AnyRoom

CLOSED = GateStatus("closed", 0.0, 0, 1.0, shared=True)


@dataclass
class AGate:
    """A gate in one state."""

    at: GateStatus

    async def admit(self, service: str) -> Admission:
        raise AssertionError("a dispatcher sends no request")

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        raise AssertionError("a dispatcher sends no request")

    async def status(self, service: str) -> GateStatus:
        return self.at


@dataclass
class ALimiter(AnyRoom):
    """Room by model; None while Redis is away."""

    rooms: dict[str, float | None]
    shares: list[float] = field(default_factory=list)

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit:
        raise AssertionError("a dispatcher sends no request")

    async def room(self, model: str, *, within_s: float, share: float = 1.0) -> float | None:
        assert within_s == 1.5
        self.shares.append(share)
        return self.rooms[model]


def _room(gate: GateStatus, **rooms: float | None) -> dict[str, int]:
    return asyncio.run(room_for(list(rooms), gate=AGate(gate), limiter=ALimiter(rooms), within_s=1.5))


def test_each_model_has_the_room_that_its_limits_leave() -> None:
    assert _room(CLOSED, haiku=16.1, opus=0.0) == {"haiku": 17, "opus": 0}


def test_nothing_is_sent_to_a_closed_door() -> None:
    assert _room(GateStatus("open", 42.0, 0, 0.0, shared=True), haiku=99) == {"haiku": 0}


def test_nothing_is_sent_while_the_probe_is_out() -> None:
    assert _room(GateStatus("probing", 30.0, 0, 0.0, shared=True), haiku=99) == {"haiku": 0}


def test_what_a_probe_needs_is_sent_when_its_time_has_come() -> None:
    assert _room(GateStatus("open", 0.0, 0, 0.0, shared=True), haiku=99, opus=1) == {"haiku": PROBES, "opus": PROBES}


def test_a_recovering_service_is_sent_its_share() -> None:
    limiter = ALimiter({"haiku": 3.0})
    recovering = AGate(GateStatus("recovering", 0.0, 0, 0.25, shared=True))

    rooms = asyncio.run(room_for(["haiku"], gate=recovering, limiter=limiter, within_s=1.5))

    assert (rooms, limiter.shares) == ({"haiku": 3}, [0.25])


def test_nothing_is_held_back_while_redis_is_away() -> None:
    assert _room(GateStatus("open", 42.0, 0, 0.0, shared=False), haiku=99) == {}
    assert _room(CLOSED, haiku=None, opus=2) == {"opus": 2}


def test_redis_is_not_asked_where_no_model_is_wanted() -> None:
    assert _room(CLOSED) == {}
