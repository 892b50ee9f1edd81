"""The port through which a model is asked for its next message in a conversation, and the gateway in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import Need
from qa_worker.application.model_calls import ModelCall, ModelCalls
from qa_worker.domain.call import ToolSpec
from qa_worker.domain.chat import Message, Said
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure

EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Turned:
    """How a model is turned: its name, its effort, the most tokens of one message, thinking included."""

    model: str
    effort: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One message wanted. `key` is the workspace's id; `within_s` real seconds end the request, quick retries included."""

    turned: Turned
    system: str
    messages: tuple[Message, ...]
    key: str
    tools: tuple[ToolSpec, ...] = ()
    within_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What came of it. `usage` counts whatever was billed; `cost_micro_usd` is None where the price isn't known.

    `took_s` is the time of the exchange that gave the answer, without retries before it and waits for permits.
    """

    result: Said | Failure
    usage: Usage
    cost_micro_usd: int | None
    took_s: float = 0.0
    limits: RateLimits | None = None


class ChatModel(Protocol):
    """A model that talks, for threads."""

    def say(self, request: ChatRequest) -> ChatAnswer:
        """Its next message; faults of the provider are a `Failure` in the answer, never an exception."""
        ...


class AsyncChatModel(Protocol):
    """The same on an event loop."""

    async def say(self, request: ChatRequest) -> ChatAnswer:
        """Its next message; faults of the provider are a `Failure` in the answer, never an exception."""
        ...


class MeteredChatModel(AsyncChatModel, Protocol):
    """A model whose requests have a size that can be told before they are sent."""

    def need(self, request: ChatRequest) -> Need:
        """What this request will probably take of the provider's meters."""
        ...


class GatedChatModel:
    """Implements `AsyncChatModel` in front of another one."""

    def __init__(self, model: MeteredChatModel, calls: ModelCalls) -> None:
        self._model = model
        self._calls = calls

    async def say(self, request: ChatRequest) -> ChatAnswer:
        """See the port. A `HELD` failure says why nothing was sent and when to try again."""
        wanted = ModelCall(request.turned.model, request.key, lambda: self._model.need(request), request.within_s)
        answer = await self._calls.send(wanted, lambda: self._model.say(request))
        return ChatAnswer(answer, Usage(), 0) if isinstance(answer, Failure) else answer
