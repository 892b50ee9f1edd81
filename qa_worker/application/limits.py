"""What the gateway asks before a request leaves: is the service up (gate), is there room (limiter).

Both are shared by all workers through Redis, and fall back to this process when Redis is away: fast, saying so, and
never into "no limit". All methods run on the gateway's event loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from qa_worker.application.judging import AsyncJudge, JudgeRequest, RateLimits
from qa_worker.domain.evaluation import Usage


class Verdict(StrEnum):
    """What a finished request says about the service it went to."""

    UP = "up"
    DOWN = "down"
    """5xx, 529, timeouts, connection faults."""
    SILENT = "silent"
    """Nothing: a 429 or a 4xx is about us, not about the service."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The gate's answer. `open_for_s` > 0: closed to requests for that long. `probe` is the lease of the one probe.

    `share` is the part of the usual rate that may be used (0-1]: less than 1 while a service recovers.
    """

    open_for_s: float = 0.0
    probe: str = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class GateStatus:
    """`state` is closed, open, probing or recovering; `share` is the part of the rate that is let through (0-1)."""

    state: str
    open_for_s: float
    failures: int
    share: float
    shared: bool
    """False while Redis is away and this process decides alone."""


class Gate(Protocol):
    """The circuit breaker in front of one service."""

    async def admit(self, service: str) -> Admission:
        """May a request leave? Exactly one caller of all processes is given the probe of a half-open gate."""
        ...

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        """What the request said about the service."""
        ...

    async def status(self, service: str) -> GateStatus:
        """For people."""
        ...


@dataclass(frozen=True, slots=True)
class Need:
    """What a request will probably take, of each of the provider's three meters."""

    input_tokens: int
    output_tokens: int
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Permit:
    """Room was reserved: give it back with `settle`.

    `probe`: the provider's spend limit was reached, and this one request asks whether it still is.
    """

    model: str
    need: Need
    shared: bool
    probe: bool = False


@dataclass(frozen=True, slots=True)
class NoRoom:
    """There will probably be room in so many seconds. `capped`: the provider's spend limit is reached."""

    wait_s: float
    capped: bool = False


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """One meter: its limit a minute, what is left of the bucket, and where the limit comes from (learnt, settings)."""

    meter: str
    limit: float
    left: float
    source: str


@dataclass(frozen=True, slots=True)
class Brakes:
    """What holds a model back besides its meters.

    `capped_for_s`: the provider's spend limit is reached, and is asked about again in so many seconds; None: it isn't.
    `load` is the part of the rate that is sent (0-1]: less than 1 while the service says that it is overloaded.
    """

    capped_for_s: float | None = None
    load: float = 1.0


class Limiter(Protocol):
    """One token bucket for each model and meter, on the server's clock, in one atomic script."""

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit | NoRoom:
        """Take room of all three meters, or of none. `share` < 1 slows everything down while a service recovers.

        A request that `can_wait` leaves the last of the room to those that can't.
        """
        ...

    async def settle(self, permit: Permit, usage: Usage | None) -> None:
        """Give back what wasn't used, take what was used on top. None: the request never left.

        A probe that was billed has found that money can be spent again; after any other, somebody else asks.
        """
        ...

    async def pause(self, model: str, seconds: float) -> None:
        """Nobody gets room before that: the provider said so."""
        ...

    async def ease(self, model: str) -> None:
        """The service is overloaded: half of the rate for everybody, which comes back in steps."""
        ...

    async def cap(self, permit: Permit, seconds: float) -> None:
        """The provider's spend limit is reached: nobody gets room for so long, and then one alone, to ask again."""
        ...

    async def learn(self, model: str, limits: RateLimits) -> None:
        """Take over the provider's limits, capped by the settings; the level is lowered to what it says is left."""
        ...

    async def room(self, model: str, *, within_s: float, share: float = 1.0) -> float | None:
        """How many more requests that can wait, of the usual size, leave within so many seconds, after those booked now.

        None while Redis is away: this process doesn't know what the others take.
        """
        ...

    async def status(self, model: str) -> tuple[BucketStatus, ...]:
        """For people."""
        ...

    async def brakes(self, model: str) -> Brakes:
        """For people, too."""
        ...


SPENT = "budget_spent"
"""What a row waits for that a spent budget holds back."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A daily budget is spent. `reason` names it; `wait_s` is when to look again: the turn of the day, or sooner."""

    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent today, in micro-dollars. `workspace` is empty for all of them together; `cap` None is no cap."""

    workspace: str
    spent: int
    cap: int | None


class Budget(Protocol):
    """What may still be spent today (UTC), for a workspace and for all of them together."""

    async def exceeded(self, workspace: str) -> Exceeded | None:
        """The budget that is spent, or None while there is some left."""
        ...


class MeteredJudge(AsyncJudge, Protocol):
    """A judge whose requests have a size that can be told before they are sent."""

    def need(self, request: JudgeRequest) -> Need:
        """What this request will probably take of the provider's meters."""
        ...


class Pace(Protocol):
    """How fast work may be sent to the workers, so that they rarely find the gate closed or no room."""

    def room(self, models: Collection[str]) -> Mapping[str, int]:
        """How many more evaluations may be sent for each of these models now. One that is left out is not held back."""
        ...
