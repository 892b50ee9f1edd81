"""The gateway: budget, limiter, breaker, request, in this order, and what each answer tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from qa_worker.application.gateway import LOOK_AGAIN_S, SERVICE, Gateway
from qa_worker.application.judging import JudgeAnswer, JudgeRequest, RateLimits
from qa_worker.application.limits import (
    Admission,
    Exceeded,
    GateStatus,
    Need,
    NoRoom,
    Permit,
    Verdict,
)
from qa_worker.application.model_calls import ModelCall, ModelCalls
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.builders import a_call, a_rubric, an_assessment
from tests.fakes import AnyRoom

REQUEST = JudgeRequest(a_call(), a_rubric(), Evidence(), JudgeSpec(JudgeKind.CLAUDE, "claude-haiku-5-5"), "workspace")
USED = Usage(input_tokens=900, output_tokens=100)


@dataclass
class World:
    """Budget, gate, limiter and judge in one, noting what happens in which order."""

    result: Assessment | Failure | Exception = field(default_factory=an_assessment)
    before: list[Failure] = field(default_factory=list)
    """What is answered before the result, each once."""
    after_first: Admission | None = None
    """What the gate says to all but the first."""
    limits: RateLimits | None = None
    spent: Exceeded | None = None
    admission: Admission = field(default_factory=Admission)
    rooms: list[Permit | NoRoom] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    async def exceeded(self, workspace: str) -> Exceeded | None:
        self.seen.append(f"budget {workspace}")
        return self.spent

    async def admit(self, service: str) -> Admission:
        if self.after_first is not None and f"admit {service}" in self.seen:
            self.admission = self.after_first
        self.seen.append(f"admit {service}")
        return self.admission

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        assert admission is self.admission
        self.seen.append(f"report {verdict.value}")

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit | NoRoom:
        last = ", can wait" if can_wait else ""
        self.seen.append(f"reserve {need.input_tokens}+{need.output_tokens} share {share}{last}")
        return self.rooms.pop(0) if self.rooms else Permit(model, need, shared=True)

    async def settle(self, permit: Permit, usage: Usage | None) -> None:
        self.seen.append("give back" if usage is None else f"settle {usage.prompt_tokens}+{usage.output_tokens}")

    async def pause(self, model: str, seconds: float) -> None:
        self.seen.append(f"pause {seconds:.0f}")

    async def ease(self, model: str) -> None:
        self.seen.append("ease")

    async def cap(self, permit: Permit, seconds: float) -> None:
        self.seen.append(f"cap {seconds:.0f}")

    async def learn(self, model: str, limits: RateLimits) -> None:
        self.seen.append(f"learn {limits.requests}")

    async def status(self, _name: str) -> GateStatus:
        return GateStatus("closed", 0, 0, 1, shared=True)

    def need(self, request: JudgeRequest) -> Need:
        return Need(1000, 200)

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        self.seen.append("ask")
        result = self.before.pop(0) if self.before else self.result
        if isinstance(result, Exception):
            raise result
        usage = USED if isinstance(result, Assessment) else Usage()
        return JudgeAnswer(result, usage, request.spec.model, "req", "", self.limits)


class Limits(AnyRoom):
    """The limiter's side of a world."""

    def __init__(self, world: World) -> None:
        self.seen = world.seen
        self.reserve = world.reserve  # type: ignore[method-assign]
        self.settle = world.settle  # type: ignore[method-assign]
        self.pause = world.pause  # type: ignore[method-assign]
        self.ease = world.ease  # type: ignore[method-assign]
        self.cap = world.cap  # type: ignore[method-assign]
        self.learn = world.learn  # type: ignore[method-assign]


def _grade(world: World, *, deadline_s: float = 60.0) -> JudgeAnswer:
    async def no_wait(seconds: float) -> None:
        world.seen.append(f"wait {seconds}")

    gateway = Gateway(world, budget=world, gate=world, limiter=Limits(world), deadline_s=deadline_s, sleep=no_wait)
    return asyncio.run(gateway.grade(REQUEST))


def _failure(kind: FailureKind, code: str = "code", retry_after_s: float | None = None) -> Failure:
    return Failure(kind, code, "message", retry_after_s=retry_after_s)


def test_a_request_passes_everything_in_order() -> None:
    world = World(limits=RateLimits(requests=1000))

    answer = _grade(world)

    assert isinstance(answer.result, Assessment)
    assert world.seen == [
        "budget workspace",
        "reserve 1000+200 share 1.0",
        f"admit {SERVICE}",
        "ask",
        "report up",
        "settle 900+100",
        "learn 1000",
    ]


def test_a_spent_budget_holds_the_request_back_before_anything_else() -> None:
    world = World(spent=Exceeded("The budget is spent.", 300))

    answer = _grade(world)

    assert answer.result == Failure(FailureKind.HELD, "budget_spent", "The budget is spent.", retry_after_s=300)
    assert world.seen == ["budget workspace"]


def test_an_open_gate_holds_the_request_back_and_gives_its_room_back() -> None:
    world = World(admission=Admission(open_for_s=4))

    answer = _grade(world)

    assert isinstance(answer.result, Failure)
    assert (answer.result.kind, answer.result.code, answer.result.retry_after_s) == (
        FailureKind.HELD,
        "breaker_open",
        4,
    )
    assert "ask" not in world.seen
    assert world.seen[-1] == "give back"


def test_a_gate_that_is_open_for_long_is_looked_at_again_sooner() -> None:
    answer = _grade(World(admission=Admission(open_for_s=600)))

    assert isinstance(answer.result, Failure)
    assert answer.result.retry_after_s == LOOK_AGAIN_S


def test_a_short_wait_for_room_is_waited_in_the_slot() -> None:
    world = World(rooms=[NoRoom(0.5), NoRoom(1.0)])

    assert isinstance(_grade(world).result, Assessment)
    assert [step for step in world.seen if step.startswith("wait")] == ["wait 0.5", "wait 1.0"]


def test_a_long_wait_for_room_goes_to_the_row() -> None:
    world = World(rooms=[NoRoom(0.5), NoRoom(1.6)])

    answer = _grade(world)

    assert isinstance(answer.result, Failure)
    assert (answer.result.kind, answer.result.code, answer.result.retry_after_s) == (
        FailureKind.HELD,
        "limit_used_up",
        1.6,
    )
    assert "ask" not in world.seen


@pytest.mark.parametrize(
    ("kind", "code", "verdict", "of_a_probe"),
    [
        (FailureKind.TRANSIENT, "http_500", "down", "down"),
        (FailureKind.TRANSIENT, "http_504", "down", "down"),
        (FailureKind.TRANSIENT, "timeout", "down", "down"),
        (FailureKind.TRANSIENT, "read_timeout", "down", "down"),
        (FailureKind.TRANSIENT, "connect_timeout", "down", "down"),
        (FailureKind.TRANSIENT, "deadline", "down", "down"),
        (FailureKind.TRANSIENT, "connection", "down", "down"),
        (FailureKind.TRANSIENT, "cut_answer", "down", "down"),
        (FailureKind.OVERLOADED, "http_529", "down", "down"),
        # a client error is about us, though it may pass by itself; a probe learns from it that the service answers
        (FailureKind.TRANSIENT, "http_408", "silent", "up"),
        (FailureKind.TRANSIENT, "http_409", "silent", "up"),
        (FailureKind.TRANSIENT, "http_499", "silent", "up"),
        (FailureKind.RATE_LIMITED, "http_429", "silent", "up"),
        (FailureKind.REJECTED, "http_400", "silent", "up"),
        (FailureKind.BLOCKED, "http_401", "silent", "up"),
        (FailureKind.SPEND_CAP, "http_429", "silent", "up"),
        # somebody else answered in its place: that opens no gate, and closes none
        (FailureKind.TRANSIENT, "bad_response", "silent", "down"),
        # nothing was sent
        (FailureKind.TRANSIENT, "pool_timeout", "silent", "silent"),
        (FailureKind.BLOCKED, "bad_address", "silent", "silent"),
        (FailureKind.REJECTED, "sdk", "silent", "silent"),
        (FailureKind.UNREADABLE, "max_tokens", "up", "up"),
    ],
)
def test_only_the_services_own_faults_count_against_it(
    kind: FailureKind, code: str, verdict: str, of_a_probe: str
) -> None:
    world = World(result=_failure(kind, code))
    probing = World(result=_failure(kind, code), admission=Admission(probe="lease"))

    _grade(world)
    _grade(probing)

    assert f"report {verdict}" in world.seen
    assert f"report {of_a_probe}" in probing.seen


def test_a_429_closes_the_bucket_for_everyone() -> None:
    world = World(result=_failure(FailureKind.RATE_LIMITED, retry_after_s=7))

    _grade(world)

    assert world.seen[-2:] == ["settle 0+0", "pause 7"]


@pytest.mark.parametrize("retry_after_s", [None, 0.0])
def test_a_429_that_tells_no_time_closes_the_bucket_for_a_moment(retry_after_s: float | None) -> None:
    world = World(result=_failure(FailureKind.RATE_LIMITED, retry_after_s=retry_after_s))

    _grade(world)

    assert world.seen[-2:] == ["settle 0+0", "pause 1"]


def test_an_overloaded_service_is_sent_less_by_everybody() -> None:
    world = World(result=_failure(FailureKind.OVERLOADED, "http_529", retry_after_s=7))

    _grade(world)

    assert world.seen[-3:] == ["report down", "settle 0+0", "ease"]


def test_the_providers_spend_limit_stops_all_calls_of_the_model_for_minutes() -> None:
    world = World(result=_failure(FailureKind.SPEND_CAP, "enforced_spend_limit_reached"))

    _grade(world)

    assert world.seen[-2:] == ["settle 0+0", "cap 300"]


@pytest.mark.parametrize(("wait_s", "told_s"), [(0.5, 0.5), (300, LOOK_AGAIN_S)])
def test_what_the_providers_spend_limit_holds_back_says_so_and_waits_in_its_row(wait_s: float, told_s: float) -> None:
    world = World(rooms=[NoRoom(wait_s, capped=True)])

    answer = _grade(world)

    assert isinstance(answer.result, Failure)
    assert (answer.result.kind, answer.result.code) == (FailureKind.HELD, "spend_cap")
    assert "spend limit" in answer.result.message
    assert answer.result.retry_after_s == told_s
    assert world.seen[1:] == ["reserve 1000+200 share 1.0"]


def test_a_fault_of_ours_blames_nobody_and_gives_its_room_back() -> None:
    world = World(result=ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        _grade(world)

    assert world.seen[-2:] == ["report silent", "give back"]


def test_a_recovering_service_gets_its_share_of_the_rate() -> None:
    world = World(admission=Admission(share=0.25))
    gateway = Gateway(world, budget=world, gate=world, limiter=Limits(world))

    async def twice() -> None:
        await gateway.grade(REQUEST)
        await gateway.grade(REQUEST)

    asyncio.run(twice())

    assert [step for step in world.seen if step.startswith("reserve")][-1].endswith("share 0.25")


# -- quick retries

FAULT = _failure(FailureKind.TRANSIENT, "http_503")


def _steps(world: World) -> Sequence[str]:
    """What was seen, without the pauses between tries, which are random."""
    return [step for step in world.seen if not step.startswith("wait")]


def test_every_try_passes_budget_limiter_and_breaker_and_is_told_of() -> None:
    world = World(before=[FAULT, FAULT])

    assert isinstance(_grade(world).result, Assessment)
    a_try = ["budget workspace", "reserve 1000+200 share 1.0", f"admit {SERVICE}", "ask"]
    assert _steps(world) == [
        *(*a_try, "report down", "settle 0+0") * 2,
        *(*a_try, "report up", "settle 900+100"),
    ]


def test_after_three_tries_the_row_decides() -> None:
    world = World(before=[FAULT] * 3)

    assert _grade(world).result is FAULT
    assert [world.seen.count(step) for step in ("ask", "report down", "settle 0+0")] == [3, 3, 3]


def test_a_probe_is_one_request() -> None:
    world = World(result=FAULT, admission=Admission(probe="lease"))

    assert _grade(world).result is FAULT
    assert world.seen[-3:] == ["ask", "report down", "settle 0+0"]
    assert world.seen.count("ask") == 1


def test_a_retry_that_becomes_the_probe_is_the_last_one() -> None:
    world = World(result=FAULT, after_first=Admission(probe="lease"))

    _grade(world)

    assert world.seen.count("ask") == 2


def test_what_a_gate_that_opened_meanwhile_holds_back_was_sent_and_its_attempt_counts() -> None:
    world = World(result=FAULT, after_first=Admission(open_for_s=60))

    assert _grade(world).result is FAULT
    assert world.seen.count("ask") == 1
    assert world.seen[-1] == "give back"


@pytest.mark.parametrize("wait_s", [1.6, 60])
def test_tries_share_one_patience_and_a_retry_without_room_is_not_made(wait_s: float) -> None:
    permit = Permit("claude-haiku-5-5", Need(1000, 200), shared=True)
    world = World(result=FAULT, rooms=[NoRoom(0.5), permit, NoRoom(wait_s)])

    assert _grade(world).result is FAULT
    assert world.seen.count("ask") == 1


def test_a_retry_that_a_budget_holds_back_is_not_made() -> None:
    world = World(result=FAULT)

    class Spent(Limits):
        async def exceeded(self, workspace: str) -> Exceeded | None:
            return Exceeded("The budget is spent.", 300) if "ask" in self.seen else None

    async def no_wait(_seconds: float) -> None:
        await asyncio.sleep(0)

    limits = Spent(world)
    gateway = Gateway(world, budget=limits, gate=world, limiter=limits, sleep=no_wait)

    assert asyncio.run(gateway.grade(REQUEST)).result is FAULT
    assert world.seen.count("ask") == 1


class Hanging(World):
    """Its second request gets no answer."""

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        if "ask" in self.seen:
            self.seen.append("ask")
            await asyncio.Event().wait()
        return await super().grade(request)


def test_the_deadline_holds_over_all_tries_together() -> None:
    world = Hanging(result=FAULT)

    answer = _grade(world, deadline_s=0.05)

    assert isinstance(answer.result, Failure)
    assert (answer.result.kind, answer.result.code) == (FailureKind.TRANSIENT, "deadline")
    assert world.seen[-3:] == ["ask", "report down", "settle 0+0"]


def test_no_retry_is_made_when_the_deadline_is_over() -> None:
    world = World(result=FAULT)

    assert _grade(world, deadline_s=0.0).result is FAULT
    assert (world.seen.count("ask"), world.seen[-1]) == (1, "give back")


# -- a probe has a lease


@pytest.mark.parametrize("of", ["gate", "spend limit"])
def test_a_probe_ends_before_its_lease_whatever_time_its_request_has(of: str) -> None:
    class Slow(World):
        async def grade(self, request: JudgeRequest) -> JudgeAnswer:
            self.seen.append("ask")
            await asyncio.Event().wait()
            raise AssertionError("nobody answers")

    lease = Permit("claude-haiku-5-5", Need(1000, 200), shared=True, probe=of == "spend limit")
    world = Slow(admission=Admission(probe="lease" if of == "gate" else ""), rooms=[lease])
    calls = ModelCalls(budget=world, gate=world, limiter=Limits(world), probe_within_s=0.01)
    wanted = ModelCall("claude-haiku-5-5", "workspace", lambda: Need(1000, 200), within_s=600)

    answer = asyncio.run(calls.send(wanted, lambda: world.grade(REQUEST)))

    assert isinstance(answer, Failure)
    assert answer.code == "deadline"
    assert world.seen[-3:] == ["ask", "report down", "settle 0+0"]
