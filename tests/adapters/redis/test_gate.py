from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import pytest
import redis
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qa_worker.adapters.redis.gate import RedisGate, _Ticket
from qa_worker.adapters.redis.local import LocalBreaker, Pass
from qa_worker.application.limits import Admission, Verdict
from qa_worker.domain.breaker import BreakerRules
from qa_worker.embedded.valkey import ValkeyServer
from tests.adapters.redis.conftest import gone, return_of

T = TypeVar("T")
pytestmark = pytest.mark.services
SERVICE = "claude"
KEY = f"qa:gate:{{{SERVICE}}}"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _run(url: str, body: Callable[[RedisGate, Clock], Awaitable[T]], **options: Any) -> T:
    async def whole() -> T:
        clock = Clock()
        gate = RedisGate(url, server_clock=clock, **options)
        try:
            return await body(gate, clock)
        finally:
            await gate.close()

    return asyncio.run(whole())


async def _fail(gate: RedisGate, times: int, admission: Admission | None = None) -> None:
    for _ in range(times):
        await gate.report(SERVICE, Verdict.DOWN, admission or await gate.admit(SERVICE))


async def _open(gate: RedisGate, clock: Clock) -> Admission:
    """Opened, and its time is up; the probe."""
    await _fail(gate, 5)
    clock.now += (await gate.status(SERVICE)).open_for_s
    return await gate.admit(SERVICE)


def test_five_failures_open_it_for_a_minute(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> list[float]:
        await _fail(gate, 4)
        before = await gate.admit(SERVICE)
        await _fail(gate, 1)
        clock.now += 10
        return [before.open_for_s, (await gate.admit(SERVICE)).open_for_s]

    assert _run(broker_url, body) == [0.0, pytest.approx(50.0)]


def test_twenty_percent_errors_do_not_open_it(broker_url: str) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> str:
        draw = random.Random(7)  # noqa: S311 - the same each time
        for _ in range(2000):
            verdict = Verdict.DOWN if draw.random() < 0.2 else Verdict.UP
            await gate.report(SERVICE, verdict, await gate.admit(SERVICE))
        return (await gate.status(SERVICE)).state

    assert _run(broker_url, body) == "closed"


def test_an_outage_under_load_opens_it_at_once(broker_url: str) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> int:
        for _ in range(200):
            await gate.report(SERVICE, Verdict.UP, await gate.admit(SERVICE))
        for sent in range(100):
            admission = await gate.admit(SERVICE)
            if admission.open_for_s > 0:
                return sent
            await gate.report(SERVICE, Verdict.DOWN, admission)
        return 100

    assert _run(broker_url, body) <= 12


def test_what_is_about_us_says_nothing(broker_url: str) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> str:
        for _ in range(20):
            await gate.report(SERVICE, Verdict.SILENT, await gate.admit(SERVICE))
        return (await gate.status(SERVICE)).state

    assert _run(broker_url, body) == "closed"


def test_sixty_four_who_ask_at_once_from_four_loops_get_one_probe(broker_url: str) -> None:
    async def asked(clock: Clock) -> list[Admission]:
        gate = RedisGate(broker_url, server_clock=clock)
        try:
            return await asyncio.gather(*(gate.admit(SERVICE) for _ in range(16)))
        finally:
            await gate.close()

    async def opened(gate: RedisGate, clock: Clock) -> Clock:
        await _fail(gate, 5)
        clock.now += 61
        return clock

    clock = _run(broker_url, opened)
    with ThreadPoolExecutor(4) as loops:
        answers = [one for many in loops.map(lambda _: asyncio.run(asked(clock)), range(4)) for one in many]

    assert len(answers) == 64
    assert len([answer for answer in answers if answer.probe]) == 1
    assert all(answer.open_for_s == pytest.approx(5.0) for answer in answers if not answer.probe)


def test_a_dead_prober_loses_its_lease_and_says_nothing_afterwards(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> tuple[Admission, Admission, Admission, list[str]]:
        dead = await _open(gate, clock)
        clock.now += 64
        early = await gate.admit(SERVICE)
        clock.now += 2
        heir = await gate.admit(SERVICE)
        states = []
        for prober in (dead, heir, dead):
            verdict = Verdict.UP if prober is heir else Verdict.DOWN
            await gate.report(SERVICE, verdict, prober)
            states.append((await gate.status(SERVICE)).state)
        return dead, early, heir, states

    dead, early, heir, states = _run(broker_url, body)

    assert not early.probe
    assert heir.probe not in {"", dead.probe}
    assert states == ["probing", "recovering", "recovering"]


def test_a_probe_that_never_left_makes_room_for_the_next(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> Admission:
        await gate.report(SERVICE, Verdict.SILENT, await _open(gate, clock))
        clock.now += 1.1
        return await gate.admit(SERVICE)

    assert _run(broker_url, body).probe


def test_the_time_doubles_while_it_stays_down_and_not_after_a_recovery(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> list[float]:
        times = []
        probe = await _open(gate, clock)
        for _ in range(4):
            await gate.report(SERVICE, Verdict.DOWN, probe)
            times.append((await gate.status(SERVICE)).open_for_s)
            clock.now += times[-1]
            probe = await gate.admit(SERVICE)
        await gate.report(SERVICE, Verdict.UP, probe)
        clock.now += 60
        await _fail(gate, 5)
        return [*times, (await gate.status(SERVICE)).open_for_s]

    assert _run(broker_url, body, max_recovery_s=300) == pytest.approx([120, 240, 300, 300, 60])


def test_a_relapse_during_recovery_doubles_it_too(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> float:
        await gate.report(SERVICE, Verdict.UP, await _open(gate, clock))
        clock.now += 1
        await _fail(gate, 5)
        return (await gate.status(SERVICE)).open_for_s

    assert _run(broker_url, body) == pytest.approx(120)


def test_the_rate_comes_back_in_steps(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> list[tuple[float, float, str]]:
        seen = []
        await gate.report(SERVICE, Verdict.UP, await _open(gate, clock))
        for _ in range(5):
            status = await gate.status(SERVICE)
            seen.append(((await gate.admit(SERVICE)).share, status.share, status.state))
            clock.now += 2.5
        return seen

    assert _run(broker_url, body) == [
        (0.1, 0.1, "recovering"),
        (0.25, 0.25, "recovering"),
        (0.5, 0.5, "recovering"),
        (1.0, 1.0, "closed"),
        (1.0, 1.0, "closed"),
    ]


def test_a_flood_of_failures_in_flight_opens_once(broker_url: str) -> None:
    async def body(gate: RedisGate, clock: Clock) -> tuple[float, list[str]]:
        flight = [await gate.admit(SERVICE) for _ in range(300)]
        await asyncio.gather(*(gate.report(SERVICE, Verdict.DOWN, one) for one in flight[:100]))
        open_for_s = (await gate.status(SERVICE)).open_for_s
        states = []
        for late, verdict in ((flight[100:200], Verdict.UP), (flight[200:], Verdict.DOWN)):
            await asyncio.gather(*(gate.report(SERVICE, verdict, one) for one in late))
            states.append((await gate.status(SERVICE)).state)
            if len(states) == 1:
                clock.now += 60
                await gate.report(SERVICE, Verdict.UP, await gate.admit(SERVICE))
        return open_for_s, states

    open_for_s, states = _run(broker_url, body)

    assert open_for_s == pytest.approx(60)
    # late successes don't close it, and those that hung until after the recovery don't open it again
    assert states == ["open", "recovering"]


def test_what_is_kept_carries_a_hash_tag_and_outlives_the_opening(broker_url: str) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> None:
        await _fail(gate, 5)

    _run(broker_url, body, recovery_s=7200, max_recovery_s=7200)

    with redis.Redis.from_url(broker_url, decode_responses=True) as client:
        assert client.keys() == [KEY]
        assert cast("int", client.ttl(KEY)) > 7200


verdicts = st.sampled_from([Verdict.UP, Verdict.DOWN, Verdict.DOWN, Verdict.SILENT])
acts = st.one_of(st.just("admit"), st.tuples(verdicts, st.integers(0, 8)))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 1.0, 3.0, 40.0]), acts), min_size=1, max_size=60))
def test_the_script_does_what_the_local_breaker_does(broker_url: str, stream: list[tuple[float, Any]]) -> None:
    rules = BreakerRules(threshold=3, recovery_s=4, max_recovery_s=30, probe_lease_s=6)
    own = LocalBreaker(SERVICE, rules)

    async def body(gate: RedisGate, clock: Clock) -> None:
        tickets = [Pass(0.0, "", 1.0, 0)]
        for number, (gap, act) in enumerate(stream):
            clock.now += gap
            if act == "admit":
                reply = await gate._ask(SERVICE, "admit", f"lease-{number}")
                tickets.append(own.admit(clock.now, f"lease-{number}"))
                assert _passed(reply) == tickets[-1]
            else:
                ticket = tickets[-1 - act[1] % len(tickets)]
                outcomes = {Verdict.UP: "s", Verdict.DOWN: "f", Verdict.SILENT: ""}[act[0]]
                if not (outcomes or ticket.probe):
                    continue
                await gate._ask(SERVICE, "report", act[0].value, ticket.epoch, ticket.probe, outcomes)
                own.report(clock.now, act[0], epoch=ticket.epoch, probe=ticket.probe, outcomes=outcomes)
            status = await gate.status(SERVICE)
            assert (status.state, status.failures) == (own.state(clock.now), own.failures)
            assert (status.open_for_s, status.share) == (own.open_for_s(clock.now), own.share(clock.now))

    with redis.Redis.from_url(broker_url) as client:
        client.delete(KEY)
    _run(broker_url, body, threshold=3, recovery_s=4, max_recovery_s=30, probe_lease_s=6)


def _passed(reply: list[bytes | int]) -> Pass:
    open_for_s, probe, share, epoch = reply
    assert isinstance(probe, bytes)
    return Pass(float(open_for_s), probe.decode(), float(share), int(epoch))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_redis_a_process_decides_alone_and_comes_back(server: ValkeyServer, how: str) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> list[tuple[str, bool]]:
        seen = []
        await gate.admit(SERVICE)
        gone(server, how)
        async with asyncio.timeout(1.0):
            admissions = await asyncio.gather(*(gate.admit(SERVICE) for _ in range(300)))
            assert all(admission.open_for_s == 0 for admission in admissions)
            await _fail(gate, 5, admissions[0])
            status = await gate.status(SERVICE)
            seen.append((status.state, status.shared))
        return_of(server, how)
        gate._redis._ask_again_at = 0.0
        late = admissions[1]
        await _fail(gate, 5, late)
        status = await gate.status(SERVICE)
        return [*seen, (status.state, status.shared)]

    with structlog.testing.capture_logs() as logs:
        seen = _run(server.url, body)

    assert seen == [("open", False), ("closed", True)]
    assert [entry["event"] for entry in logs] == ["gate_local", "gate_shared"]


def test_a_process_alone_begins_with_what_it_last_heard(server: ValkeyServer) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> tuple[Admission, Admission]:
        await _fail(gate, 5)
        shared = await gate.admit(SERVICE)
        server.stop()
        return shared, await gate.admit(SERVICE)

    shared, alone = _run(server.url, body)

    assert isinstance(alone, _Ticket)
    assert not alone.shared
    assert alone.open_for_s == pytest.approx(shared.open_for_s, abs=2)


def test_a_gate_that_never_reached_redis_works(broker_url: str) -> None:
    async def body(gate: RedisGate, _clock: Clock) -> Admission:
        return await gate.admit(SERVICE)

    del broker_url
    assert _run("redis://127.0.0.1:1/0", body).open_for_s == 0
