from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import pytest
import redis
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qa_worker.adapters.redis.connection import TIMEOUT_S
from qa_worker.adapters.redis.limiter import START, RedisLimiter
from qa_worker.application.judging import JudgeAnswer, RateLimits
from qa_worker.application.limits import Need, NoRoom, Permit
from qa_worker.application.model_calls import ModelCall, ModelCalls
from qa_worker.domain import bucket as model
from qa_worker.domain.bucket import Amounts, Bucket, Known, Turn
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.embedded.valkey import ValkeyServer
from tests.adapters.redis.conftest import gone, return_of
from tests.fakes import NoBudget, OpenGate

T = TypeVar("T")
pytestmark = pytest.mark.services
MODEL = "claude-haiku-5-5"
KEY = f"qa:limits:{{{MODEL}}}"
NEED = Need(input_tokens=1000, output_tokens=200)
NO_CAPS: dict[str, int | None] = {}
SPENT = Failure(FailureKind.SPEND_CAP, "http_402", "The spend limit is reached.")


class Clock:
    """The server's clock and everybody's sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def _limiter(url: str, clock: Clock, *, caps: dict[str, int | None] = NO_CAPS, **options: Any) -> RedisLimiter:
    return RedisLimiter(url, caps=caps, sleep=clock.sleep, server_clock=clock, **options)


def _clock(limiter: RedisLimiter) -> Clock:
    assert isinstance(limiter._server_clock, Clock)
    return limiter._server_clock


def _run(url: str, body: Callable[[RedisLimiter], Awaitable[T]], **options: Any) -> T:
    """`body` with a limiter; its clock is `limiter._server_clock`."""

    async def whole() -> T:
        limiter = _limiter(url, Clock(), **options)
        try:
            return await body(limiter)
        finally:
            await limiter.close()

    return asyncio.run(whole())


def _stored(url: str) -> dict[str, float]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return {name: float(value) for name, value in cast("dict[str, str]", client.hgetall(KEY)).items()}


def _flat(state: Bucket) -> dict[str, float]:
    columns = {"limits": "limit", "levels": "level", "learnt": "learnt", "usual": "usual"}
    flat: dict[str, float] = {}
    for field in fields(state):
        value = getattr(state, field.name)
        if field.name in columns:
            flat |= {f"{columns[field.name]}{number}": amount for number, amount in enumerate(value, start=1)}
        else:
            flat[field.name] = value
    return flat


amounts = st.tuples(st.just(1), st.integers(1, 400_000), st.integers(0, 80_000))
known = st.tuples(*[st.none() | st.integers(1, 10_000_000)] * 3)
acts = st.one_of(
    st.tuples(st.just("reserve"), amounts, st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.0, 1.0, 3.0])),
    st.tuples(st.just("settle"), st.tuples(*[st.integers(-5000, 5000)] * 3)),
    st.tuples(st.just("pause"), st.floats(0.1, 30)),
    st.tuples(st.just("ease")),
    st.tuples(st.just("cap"), st.sampled_from([0, 5, 300]), st.sampled_from([0, 1])),
    st.tuples(st.just("learn"), known, known),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3, 2.0, 15.0, 90.0]), acts), min_size=1, max_size=25))
def test_the_script_does_what_the_model_does(broker_url: str, stream: list[tuple[float, Any]]) -> None:
    async def body(limiter: RedisLimiter) -> None:
        clock = _clock(limiter)
        pacing = limiter._pacing
        state = model.opened(pacing, clock.now + stream[0][0])
        for gap, (act, *operands) in stream:
            clock.now += gap
            reply = await limiter._ask(MODEL, act, *_operands(act, operands))
            state, turn = _modelled(state, clock.now, act, operands, pacing)
            assert bool(reply[0]) == turn.granted
            assert float(reply[1]) == pytest.approx(turn.wait_s, rel=1e-9, abs=1e-9)
            assert (not reply[0] and float(reply[3]) > 0, bool(reply[4])) == (turn.capped, turn.probe)
            room = await limiter.room(MODEL, within_s=1.5, share=0.5)
            modelled = model.room(state, clock.now, within_s=1.5, share=0.5, pacing=pacing)
            assert room == pytest.approx(modelled, rel=1e-9, abs=1e-9)
            assert _stored(broker_url) == pytest.approx(_flat(state), rel=1e-9, abs=1e-6)

    with redis.Redis.from_url(broker_url) as client:
        client.delete(KEY)
    _run(broker_url, body)


def _operands(act: str, operands: list[Any]) -> list[Any]:
    if act == "reserve":
        return [*operands[0], *operands[1:]]
    if act == "learn":
        return ["" if value is None else value for value in (*operands[0], *operands[1])]
    return list(operands[0]) if act == "settle" else operands


def _modelled(state: Bucket, now: float, act: str, operands: list[Any], pacing: model.Pacing) -> tuple[Bucket, Turn]:
    done = Turn(granted=True, wait_s=0.0)
    match act:
        case "reserve":
            need: Amounts = operands[0]
            return model.reserve(state, now, need, share=operands[1], pacing=pacing, kept_s=operands[2])
        case "settle":
            return model.settle(state, now, operands[0], pacing), done
        case "pause":
            return model.pause(state, now, operands[0]), done
        case "ease":
            return model.ease(state, now), done
        case "cap":
            capped, new = model.cap(state, now, operands[0], probe=bool(operands[1]))
            return capped, Turn(granted=new, wait_s=0.0, capped=not new)
        case _:
            limits: Known = operands[0]
            return model.learn(state, now, limits, operands[1], pacing), done


def test_two_processes_share_one_bucket(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> list[Permit | NoRoom]:
        clock = _clock(limiter)
        other = _limiter(broker_url, clock)
        try:
            return [await which.reserve(MODEL, NEED) for which in (limiter, other) for _ in range(60)]
        finally:
            await other.close()

    rooms = _run(broker_url, body)
    granted = [room for room in rooms if isinstance(room, Permit)]

    # two seconds of 16.5 a second at once, two more booked ahead
    assert len(granted) == pytest.approx(66, abs=2)
    assert all(permit.shared for permit in granted)


def test_a_turn_that_was_booked_is_waited_for(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> list[float]:
        clock = _clock(limiter)
        for _ in range(40):
            assert isinstance(await limiter.reserve(MODEL, NEED), Permit)
        return clock.slept

    slept = _run(broker_url, body)

    assert slept == sorted(slept)
    assert len(slept) == pytest.approx(7, abs=1)


def test_a_pause_stops_other_processes_and_those_who_wait_for_their_turn(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> tuple[Permit | NoRoom, Permit | NoRoom, dict[str, float]]:
        clock = _clock(limiter)
        for _ in range(40):
            await limiter.reserve(MODEL, NEED)
        before = _stored(broker_url)

        async def paused_meanwhile(_: float) -> None:
            await limiter.pause(MODEL, 7.0)

        limiter._sleep = paused_meanwhile
        waiting = await limiter.reserve(MODEL, NEED)
        other = _limiter(broker_url, clock)
        elsewhere = await other.reserve(MODEL, NEED)
        await other.close()
        return waiting, elsewhere, before

    waiting, elsewhere, before = _run(broker_url, body)

    assert isinstance(waiting, NoRoom)
    assert isinstance(elsewhere, NoRoom)
    assert waiting.wait_s == pytest.approx(7.0, abs=0.5)
    assert elsewhere.wait_s > waiting.wait_s
    assert _stored(broker_url)["level2"] == pytest.approx(before["level2"]), "the turn was given back"


def test_a_waiter_who_is_cancelled_gives_its_room_back(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> tuple[float, float]:
        for _ in range(40):
            await limiter.reserve(MODEL, NEED)
        before = _stored(broker_url)["level1"]
        limiter._sleep = asyncio.sleep
        task = asyncio.create_task(limiter.reserve(MODEL, NEED))
        while _stored(broker_url)["level1"] == before:  # noqa: ASYNC110 - the script runs elsewhere
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return before, _stored(broker_url)["level1"]

    before, after = _run(broker_url, body)

    assert after == before


@pytest.mark.parametrize(
    ("usage", "spent"),
    [
        (None, (0, 0, 0)),
        (Usage(), (1, 0, 0)),
        (Usage(input_tokens=900, output_tokens=150), (1, 900, 150)),
        (Usage(input_tokens=100, cache_read_tokens=5000, cache_write_1h_tokens=700), (1, 800, 0)),
        (Usage(input_tokens=40_000, output_tokens=9000), (1, 40_000, 9000)),
    ],
    ids=["never left", "refused", "less", "cached reads are free", "more"],
)
def test_settling_leaves_spent_what_was_used(broker_url: str, usage: Usage | None, spent: tuple[int, int, int]) -> None:
    async def body(limiter: RedisLimiter) -> tuple[float, ...]:
        before = await limiter.status(MODEL)
        permit = await limiter.reserve(MODEL, NEED)
        assert isinstance(permit, Permit)
        await limiter.settle(permit, usage)
        after = await limiter.status(MODEL)
        return tuple(b.left - a.left for b, a in zip(before, after, strict=True))

    assert _run(broker_url, body) == pytest.approx(spent)


def test_limits_are_learnt_capped_and_their_source_is_told(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> tuple[Any, ...]:
        assumed = await limiter.status(MODEL)
        told = RateLimits(requests=5000, requests_left=4000, input_tokens=5_000_000, input_tokens_left=7000)
        await limiter.learn(MODEL, told)
        return assumed, await limiter.status(MODEL)

    assumed, learnt = _run(broker_url, body, caps={"requests": 3000, "input_tokens": None})

    assert [(meter.limit, meter.source) for meter in assumed] == [(limit, "assumed") for limit in START.values()]
    assert [(meter.limit, meter.source) for meter in learnt] == [
        (3000, "settings"),
        (5_000_000, "learnt"),
        (START["output_tokens"], "assumed"),
    ]
    assert learnt[1].left == 7000


def test_known_limits_are_told_on_four_times_a_second_only(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> tuple[float, float]:
        await limiter.learn(MODEL, RateLimits(requests=600, requests_left=90))
        first = _stored(broker_url)["level1"]
        await limiter.learn(MODEL, RateLimits(requests=600, requests_left=10))
        return first, _stored(broker_url)["level1"]

    assert _run(broker_url, body) == (90, 90)


def test_what_is_kept_carries_a_hash_tag_and_goes_after_an_hour(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> None:
        await limiter.reserve(MODEL, NEED)

    _run(broker_url, body)

    with redis.Redis.from_url(broker_url, decode_responses=True) as client:
        assert client.keys() == [KEY]
        assert 3500 < cast("int", client.ttl(KEY)) <= 3600


def test_the_real_clock_is_the_servers(broker_url: str) -> None:
    async def body() -> Permit | NoRoom:
        limiter = RedisLimiter(broker_url, caps={})
        try:
            return await limiter.reserve(MODEL, NEED)
        finally:
            await limiter.close()

    assert isinstance(asyncio.run(body()), Permit)
    assert _stored(broker_url)["at"] > 1.7e9


# -- overload


def test_an_overload_slows_other_processes_too_and_is_shown(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> tuple[list[float], list[int]]:
        clock = _clock(limiter)
        other = _limiter(broker_url, clock)
        loads, granted = [], []
        try:
            for seconds in (10.0, 0.0, 2.0, 2.5):
                clock.now += seconds
                if seconds in (0.0, 2.0):
                    for _ in range(20):
                        await limiter.ease(MODEL)
                loads.append((await other.brakes(MODEL)).load)
                rooms = [await other.reserve(MODEL, NEED) for _ in range(100)]
                granted.append(sum(isinstance(room, Permit) for room in rooms))
        finally:
            await other.close()
        return loads, granted

    loads, granted = _run(broker_url, body)

    assert loads == [1.0, 0.5, 0.25, 0.5]
    assert granted[0] > 60
    assert granted[2] <= 2.5 * 16.5 / 2


def test_without_redis_an_overload_slows_the_process_by_itself(server: ValkeyServer) -> None:
    async def body(limiter: RedisLimiter) -> float:
        server.stop()
        await limiter.ease(MODEL)
        return (await limiter.brakes(MODEL)).load

    assert _run(server.url, body) == 0.5


# -- the provider's spend limit


async def _capped(limiter: RedisLimiter) -> Permit:
    permit = await limiter.reserve(MODEL, NEED)
    assert isinstance(permit, Permit)
    await limiter.settle(permit, Usage())
    await limiter.cap(permit, 300)
    return permit


def test_when_the_spend_limit_is_reached_nobody_leaves_and_then_one_asks_for_all(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> list[Permit]:
        clock = _clock(limiter)
        other = _limiter(broker_url, clock)
        probes = []
        await _capped(limiter)
        try:
            for seconds in (299, 2, 60, 10):
                clock.now += seconds
                rooms = [await which.reserve(MODEL, NEED) for which in (limiter, other) for _ in range(100)]
                assert all(room.capped for room in rooms if isinstance(room, NoRoom))
                probes += [room for room in rooms if isinstance(room, Permit)]
        finally:
            await other.close()
        return probes

    probes = _run(broker_url, body)

    # when its time is up, and when the lease of that one has run out
    assert [probe.probe for probe in probes] == [True, True]


def test_each_pause_for_the_spend_limit_is_an_error_in_the_log_once(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> None:
        clock = _clock(limiter)
        flight = [await limiter.reserve(MODEL, NEED) for _ in range(20)]
        for permit in flight:
            assert isinstance(permit, Permit)
            await limiter.cap(permit, 300)
        clock.now += 301
        probe = await limiter.reserve(MODEL, NEED)
        assert isinstance(probe, Permit)
        await limiter.settle(probe, Usage())
        await limiter.cap(probe, 300)

    with structlog.testing.capture_logs() as logs:
        _run(broker_url, body)

    found = {"event": "spend_cap_reached", "log_level": "error", "model": MODEL, "asked_again_in_s": 300}
    assert logs == [found, found]


@pytest.mark.parametrize(
    ("usage", "capped_for_s"),
    [(Usage(input_tokens=900, output_tokens=100), None), (Usage(), 5.0), (None, 5.0)],
    ids=["billed", "no answer", "never left"],
)
def test_what_the_probe_of_the_spend_limit_came_to(
    broker_url: str, usage: Usage | None, capped_for_s: float | None
) -> None:
    async def body(limiter: RedisLimiter) -> list[float | None]:
        before = (await limiter.brakes(MODEL)).capped_for_s
        await _capped(limiter)
        reached = (await limiter.brakes(MODEL)).capped_for_s
        _clock(limiter).now += 300
        probe = await limiter.reserve(MODEL, NEED)
        assert isinstance(probe, Permit)
        await limiter.settle(probe, usage)
        return [before, reached, (await limiter.brakes(MODEL)).capped_for_s]

    assert _run(broker_url, body) == [None, pytest.approx(300), capped_for_s]


def test_who_waits_for_a_booked_turn_does_not_leave_once_the_spend_limit_is_reached(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> Permit | NoRoom:
        first = await limiter.reserve(MODEL, NEED)
        assert isinstance(first, Permit)
        for _ in range(39):
            await limiter.reserve(MODEL, NEED)

        async def capped_meanwhile(_: float) -> None:
            await limiter.cap(first, 300)

        limiter._sleep = capped_meanwhile
        return await limiter.reserve(MODEL, NEED)

    room = _run(broker_url, body)

    assert isinstance(room, NoRoom)
    assert room.capped
    assert room.wait_s == pytest.approx(300)


def test_without_redis_a_process_keeps_to_the_spend_limit_by_itself(server: ValkeyServer) -> None:
    async def body(limiter: RedisLimiter) -> tuple[Permit | NoRoom, float | None]:
        server.stop()
        await _capped(limiter)
        return await limiter.reserve(MODEL, NEED), (await limiter.brakes(MODEL)).capped_for_s

    room, capped_for_s = _run(server.url, body)

    assert isinstance(room, NoRoom)
    assert room.capped
    assert capped_for_s


@dataclass
class Provider:
    """Its spend limit is reached until somebody raises it."""

    raised: bool = False
    sent: int = 0

    async def ask(self) -> JudgeAnswer:
        self.sent += 1
        await asyncio.sleep(0.001)
        if self.raised:
            return JudgeAnswer(Assessment(levels=()), Usage(input_tokens=1), MODEL, None, "")
        return JudgeAnswer(SPENT, Usage(), MODEL, None, "")


def test_two_hundred_callers_send_one_request_for_each_pause(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> list[Counter[str]]:
        calls = ModelCalls(budget=NoBudget(), gate=OpenGate(), limiter=limiter, sleep=_clock(limiter).sleep)
        wanted = ModelCall(MODEL, "w", lambda: NEED, within_s=60)
        waves = []
        for raised in (False, False, False, True, True):
            provider = Provider(raised)
            answers = await asyncio.gather(*(calls.send(wanted, provider.ask) for _ in range(200)))
            results = [answer if isinstance(answer, Failure) else answer.result for answer in answers]
            codes = Counter(result.code if isinstance(result, Failure) else "good" for result in results)
            waves.append(Counter({"sent": provider.sent}) + codes)
            _clock(limiter).now += 301
        return waves[1:]

    waves = _run(broker_url, body)

    assert waves[0] == waves[1] == {"sent": 1, "http_402": 1, "spend_cap": 199}
    assert waves[2] == {"sent": 1, "good": 1, "spend_cap": 199}
    assert "spend_cap" not in waves[3]
    assert waves[3]["good"] > 20


def test_without_redis_a_process_takes_its_part_and_never_no_limit(server: ValkeyServer) -> None:
    async def body(limiter: RedisLimiter) -> tuple[list[Permit | NoRoom], Permit | NoRoom, str]:
        permit = await limiter.reserve(MODEL, NEED)
        assert isinstance(permit, Permit)
        await limiter.learn(MODEL, RateLimits(requests=1000, input_tokens=1_000_000, output_tokens=200_000))
        server.stop()
        async with asyncio.timeout(1.0):
            alone = [await limiter.reserve(MODEL, NEED) for _ in range(60)]
            await limiter.settle(permit, None)
            await limiter.pause(MODEL, 3.0)
        return alone, await limiter.reserve(MODEL, NEED), (await limiter.status(MODEL))[0].source

    alone, refused, source = _run(server.url, body, processes=4)
    granted = [room for room in alone if isinstance(room, Permit)]

    assert 10 <= len(granted) <= 20, "a quarter of 66"
    assert not any(permit.shared for permit in granted)
    assert isinstance(refused, NoRoom)
    assert source == "local"


def test_without_redis_the_limits_are_divided_among_those_who_were_last_seen(server: ValkeyServer) -> None:
    async def body(limiter: RedisLimiter) -> tuple[int, float]:
        clock = _clock(limiter)
        others = [_limiter(server.url, clock) for _ in range(2)]
        for one in (*others, limiter):
            permit = await one.reserve(MODEL, NEED)
            assert isinstance(permit, Permit)
            await one.settle(permit, None)
            await one.close()
        gone(server, "killed")
        granted = [room for _ in range(90) if isinstance(room := await limiter.reserve(MODEL, NEED), Permit)]
        return len(granted), (await limiter.status(MODEL))[0].limit

    with structlog.testing.capture_logs() as logs:
        granted, limit = _run(server.url, body, processes=40)

    assert limit == pytest.approx(START["requests"] / 3)
    assert 16 <= granted <= 28, "a third of 66, not a fortieth"
    assert [(entry["event"], entry["shared_by"]) for entry in logs] == [("limits_local", 3)]


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_outage_is_noticed_within_a_second_and_said_once(server: ValkeyServer, how: str) -> None:
    async def body(limiter: RedisLimiter) -> list[Permit | NoRoom]:
        await limiter.reserve(MODEL, NEED)
        gone(server, how)
        async with asyncio.timeout(1.5):
            alone = await asyncio.gather(*(limiter.reserve(MODEL, NEED) for _ in range(300)))
        assert not any(room.shared for room in alone if isinstance(room, Permit))
        return_of(server, how)
        limiter._redis._ask_again_at = 0.0
        return [await limiter.reserve(MODEL, NEED) for _ in range(3)]

    with structlog.testing.capture_logs() as logs:
        rooms = _run(server.url, body)

    assert all(isinstance(room, Permit) and room.shared for room in rooms)
    assert [entry["event"] for entry in logs] == ["limits_local", "limits_shared"]


def test_a_process_that_got_no_cpu_for_a_while_does_not_call_redis_away(server: ValkeyServer) -> None:
    """The reply came in time, and this process had no time to read it."""

    async def body(limiter: RedisLimiter) -> Permit | NoRoom:
        await limiter.reserve(MODEL, NEED)
        gone(server, "frozen")
        asked = asyncio.create_task(limiter.reserve(MODEL, NEED))
        await asyncio.sleep(0.05)
        return_of(server, "frozen")
        time.sleep(2 * TIMEOUT_S)  # noqa: ASYNC251 - nothing runs on this loop meanwhile, which is what is tested
        return await asked

    with structlog.testing.capture_logs() as logs:
        permit = _run(server.url, body)

    assert isinstance(permit, Permit)
    assert permit.shared
    assert logs == []


def test_nobody_knows_the_room_while_redis_is_away(server: ValkeyServer) -> None:
    async def body(limiter: RedisLimiter) -> tuple[float | None, float | None]:
        known = await limiter.room(MODEL, within_s=1.5)
        server.stop()
        return known, await limiter.room(MODEL, within_s=1.5)

    known, unknown = _run(server.url, body)

    assert known is not None
    assert known > 0
    assert unknown is None


def test_a_state_that_an_older_version_has_written_is_gone_on_with(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> float | None:
        await limiter.reserve(MODEL, NEED)
        with redis.Redis.from_url(broker_url) as client:
            client.hdel(KEY, "usual1", "usual2", "usual3")
        await limiter.reserve(MODEL, NEED)
        return await limiter.room(MODEL, within_s=1.5)

    assert _run(broker_url, body)


def test_start_must_name_every_meter() -> None:
    with pytest.raises(ValueError, match="output_tokens"):
        RedisLimiter("redis://127.0.0.1:1/0", caps={}, start={"requests": 1, "input_tokens": 1})


def test_a_cap_below_the_assumed_limits_binds_at_once(broker_url: str) -> None:
    async def body(limiter: RedisLimiter) -> tuple[Any, ...]:
        return await limiter.status(MODEL)

    status = _run(broker_url, body, caps={"requests": 60})

    assert (status[0].limit, status[0].source) == (60, "settings")
    assert replace(status[0], left=0.0).meter == "requests"
