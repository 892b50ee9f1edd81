"""A talking model behind the gateway: the same order as for the judge, with its own size and its own key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from qa_worker.application.conversing import ChatAnswer, ChatRequest, GatedChatModel, Turned
from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import (
    Admission,
    Exceeded,
    GateStatus,
    Need,
    NoRoom,
    Permit,
    Verdict,
)
from qa_worker.application.model_calls import ModelCalls
from qa_worker.domain.chat import Message, Said, Side
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from tests.fakes import AnyRoom

REQUEST = ChatRequest(
    Turned("claude-haiku-5-5", "low", 900), "Be brief.", (Message(Side.USER, "Hello?"),), key="workspace"
)
GOOD = ChatAnswer(Said("Hello."), Usage(input_tokens=30, output_tokens=5), 7, took_s=0.4)


@dataclass
class Steps(AnyRoom):
    """Budget, limiter and model in one, noting what happens in which order."""

    answer: ChatAnswer = GOOD
    spent: Exceeded | None = None
    no_room: NoRoom | None = None
    seen: list[str] = field(default_factory=list)

    async def exceeded(self, workspace: str) -> Exceeded | None:
        self.seen.append(f"budget {workspace}")
        return self.spent

    async def reserve(self, model: str, need: Need, *, share: float = 1.0, can_wait: bool = False) -> Permit | NoRoom:
        self.seen.append(f"reserve {model} {need.input_tokens}+{need.output_tokens}")
        return self.no_room or Permit(model, need, shared=True)

    async def settle(self, permit: Permit, usage: Usage | None) -> None:
        self.seen.append("give back" if usage is None else f"settle {usage.prompt_tokens}+{usage.output_tokens}")

    async def pause(self, model: str, seconds: float) -> None:
        self.seen.append(f"pause {model} {seconds:g}")

    async def learn(self, model: str, limits: RateLimits) -> None:
        raise AssertionError("nothing was told")

    def need(self, request: ChatRequest) -> Need:
        return Need(20, request.turned.max_tokens)

    async def say(self, request: ChatRequest) -> ChatAnswer:
        assert request is REQUEST
        self.seen.append("ask")
        return self.answer


@dataclass
class Door:
    """A gate."""

    steps: Steps
    admission: Admission = field(default_factory=Admission)

    async def admit(self, service: str) -> Admission:
        self.steps.seen.append("admit")
        return self.admission

    async def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        self.steps.seen.append(f"report {verdict.value}")

    async def status(self, service: str) -> GateStatus:
        raise AssertionError("people ask this")


def _say(steps: Steps, *, admission: Admission | None = None) -> ChatAnswer:
    calls = ModelCalls(budget=steps, gate=Door(steps, admission or Admission()), limiter=steps)
    return asyncio.run(GatedChatModel(steps, calls).say(REQUEST))


def test_a_message_passes_everything_in_order() -> None:
    steps = Steps()

    assert _say(steps) is GOOD
    assert steps.seen == [
        "budget workspace",
        "reserve claude-haiku-5-5 20+900",
        "admit",
        "ask",
        "report up",
        "settle 30+5",
    ]


def test_what_is_held_back_is_not_sent_and_costs_nothing() -> None:
    held = [
        _say(Steps(spent=Exceeded("The budget is spent.", 300))),
        _say(Steps(no_room=NoRoom(9.0))),
        _say(Steps(), admission=Admission(open_for_s=4)),
    ]

    assert [(answer.usage, answer.cost_micro_usd) for answer in held] == [(Usage(), 0)] * 3
    failures = [answer.result for answer in held if isinstance(answer.result, Failure)]
    assert [(failure.kind, failure.code, failure.retry_after_s) for failure in failures] == [
        (FailureKind.HELD, "budget_spent", 300),
        (FailureKind.HELD, "limit_used_up", 9.0),
        (FailureKind.HELD, "breaker_open", 4),
    ]


def test_a_429_to_a_player_closes_the_bucket_for_the_judge_too() -> None:
    failure = Failure(FailureKind.RATE_LIMITED, "http_429", "The limit is reached.", retry_after_s=7)
    steps = Steps(ChatAnswer(failure, Usage(), 0))

    assert _say(steps).result is failure
    assert steps.seen[-3:] == ["report silent", "settle 0+0", "pause claude-haiku-5-5 7"]
