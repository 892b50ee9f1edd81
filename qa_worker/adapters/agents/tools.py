"""The agent's tools, answered by the mocks of its file, and the loop in which a model uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from qa_worker.adapters.agents.web import timed_out
from qa_worker.application.conversing import ChatAnswer
from qa_worker.application.playing import AgentReply, PlayContext
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.call_control import ends_call, transfers
from qa_worker.domain.chat import Message, Said, agent_chat
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.excerpts import of_call
from qa_worker.domain.failure import Failure
from qa_worker.domain.fence import clean
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

MAX_ROUNDS = 10
"""How often a model may call tools before it has to speak: a caller has hung up by then, and a loop would never end."""

_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Answered:
    """The tool turn that answers one call, how long the tool took on the run's clock, and what of it is the test's fault."""

    turn: Turn
    took_s: float
    fault: str = ""


def mocked(agent: AgentUnderTest, calls: Sequence[ToolCall], *, before: Sequence[Turn]) -> tuple[Answered, ...]:
    """The answers to these calls, which are made one after the other.

    `before` is the run so far: a mock may answer its second call otherwise than its first.
    """
    earlier = [past for turn in before for past in turn.tool_calls]
    answered = []
    for call in calls:
        answer = agent.answer(call, earlier=earlier)
        earlier.append(call)
        turn = Turn(Role.TOOL, answer.text, tool_call_id=call.id, is_error=answer.is_error)
        fault = "" if answer.matched else f"no mock answers {of_call(call)}"
        answered.append(Answered(turn, answer.after_s, fault))
    return tuple(answered)


def first_word_s(turns: Sequence[Turn], ready_s: Sequence[float], *, otherwise: float) -> float:
    """When the first word of these turns was there; `otherwise` where there is none."""
    spoken_s = (there_s for turn, there_s in zip(turns, ready_s, strict=True) if turn.role is Role.AGENT and turn.text)
    return next(spoken_s, otherwise)


def close(turns: Sequence[Turn]) -> tuple[bool, bool]:
    """(the agent hung up, the agent handed the caller over), by the tools that it used in these turns."""
    uses = Transcript(tuple(turns)).tool_uses()
    return ends_call(uses), transfers(uses)


def converse(
    context: PlayContext,
    history: Sequence[Turn],
    told: str,
    *,
    say: Callable[[tuple[Message, ...], float], ChatAnswer],
) -> AgentReply | Failure:
    """The model's reply to `told`: it calls tools and gets the mocks' answers until it speaks.

    `say` asks for one message, within so many seconds: what is left of the time of the whole reply. A cancel ends it
    before the next message. One that goes on calling tools beyond `MAX_ROUNDS` has said nothing, which is the agent's
    own fault and is graded so.
    """
    reply, within_s = _Reply(), context.limits.reply_s
    until = time.monotonic() + within_s
    for number in range(MAX_ROUNDS):
        if number and context.stop():
            return replace(reply.done(), cut_short=True)
        left_s = until - time.monotonic()
        if left_s <= 0:
            return reply.failed(timed_out(within_s))
        so_far = (*history, Turn(Role.CALLER, told), *reply.turns)
        answer = say(agent_chat(so_far), left_s)
        reply.book(answer)
        if isinstance(answer.result, Failure):
            return reply.failed(answer.result)
        said = Said(spoken(answer.result.text), tuple(map(_storable, answer.result.calls)))
        if not said.calls:
            reply.speak(said.text)
            break
        reply.use(said, context.agent, before=so_far)
        # who has said goodbye and hung up has nothing to add
        if said.text and any(close(reply.turns)):
            break
    return reply.done()


def spoken(text: str) -> str:
    """An agent's words without what nobody hears, and without the note that would make them count as cut off."""
    return clean(text).replace(CUT_NOTE, "").strip()


def storable(value: Any, depth: int = 0) -> Any:
    """A JSON value whose texts the database takes. Raises ValueError for one that is nested too deep."""
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [storable(part, depth + 1) for part in value]
    if isinstance(value, dict):
        return {clean(name): storable(part, depth + 1) for name, part in value.items()}
    return value


def _storable(call: ToolCall) -> ToolCall:
    try:
        arguments, malformed = storable(dict(call.arguments)), call.malformed
    except ValueError as error:
        arguments, malformed = {}, str(error)
    return replace(
        call, name=clean(call.name), arguments=arguments, malformed=None if malformed is None else clean(malformed)
    )


@dataclass
class _Reply:
    """One reply while it grows."""

    turns: list[Turn] = field(default_factory=list)
    _ready_s: list[float] = field(default_factory=list)
    _faults: dict[int, str] = field(default_factory=dict)
    _usage: Usage = field(default_factory=Usage)
    _cost: int | None = 0
    _elapsed_s: float = 0.0

    def book(self, answer: ChatAnswer) -> None:
        names = (part.name for part in fields(Usage))
        self._usage = Usage(*(getattr(self._usage, name) + getattr(answer.usage, name) for name in names))
        known = self._cost is not None and answer.cost_micro_usd is not None
        self._cost = (self._cost or 0) + (answer.cost_micro_usd or 0) if known else None
        self._elapsed_s += answer.took_s

    def speak(self, text: str) -> None:
        if text:
            self._add(Turn(Role.AGENT, text))

    def use(self, said: Said, agent: AgentUnderTest, *, before: Sequence[Turn]) -> None:
        self._add(Turn(Role.AGENT, said.text, tool_calls=said.calls))
        for answered in mocked(agent, said.calls, before=before):
            self._elapsed_s += answered.took_s
            if answered.fault:
                self._faults[len(self.turns)] = answered.fault
            self._add(answered.turn)

    def done(self) -> AgentReply:
        ends, transferred = close(self.turns)
        latency_s = first_word_s(self.turns, self._ready_s, otherwise=self._elapsed_s)
        return AgentReply(
            tuple(self.turns),
            latency_s,
            ends,
            transferred,
            self._usage,
            self._cost,
            ready_s=tuple(self._ready_s),
            faults=self._faults,
        )

    def failed(self, failure: Failure) -> Failure:
        """The failure with what all messages of the reply have cost."""
        return replace(failure, usage=self._usage, cost_micro_usd=self._cost)

    def _add(self, turn: Turn) -> None:
        self.turns.append(turn)
        self._ready_s.append(self._elapsed_s)
