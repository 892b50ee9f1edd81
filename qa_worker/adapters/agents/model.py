"""Both sides played by a model behind the gateway: the agent with its own instructions, the caller with its brief."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qa_worker.adapters.agents.tools import converse
from qa_worker.application.conversing import ChatAnswer, ChatModel, ChatRequest, Turned
from qa_worker.application.playing import AgentReply, CallerReply, PlayContext
from qa_worker.domain.caller_prompt import caller_chat, caller_system, tidied
from qa_worker.domain.chat import PLATFORM_NOTE, Message
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.markers import parse_freely
from qa_worker.domain.transcript import Turn


class ModelAgent:
    """Implements the port `AgentPlayer`: instructions and tools are those of the agent's file, tools answer from mocks."""

    def __init__(self, model: ChatModel, turned: Turned) -> None:
        self._model = model
        self._turned = turned

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        """See the port."""
        agent = context.agent.agent
        system = "\n\n".join(filter(None, (agent.instructions.strip(), PLATFORM_NOTE)))

        def say(messages: tuple[Message, ...], within_s: float) -> ChatAnswer:
            request = _request(context, self._turned, system, messages)
            return self._model.say(replace(request, tools=agent.tools, within_s=within_s))

        return converse(context, history, told, say=say)


class ModelCaller:
    """Implements the port `CallerPlayer`. A fixed opening is said as it stands, and costs nothing."""

    def __init__(self, model: ChatModel, turned: Turned) -> None:
        self.name = turned.model
        self._model = model
        self._turned = turned

    def line(self, context: PlayContext, history: Sequence[Turn], number: int) -> CallerReply | Failure:
        """See the port. What can't be understood of the markers stays in the line, for whoever plays it to report."""
        if number == 0 and context.scenario.opening:
            return CallerReply(context.scenario.opening)
        request = _request(context, self._turned, caller_system(context.scenario), caller_chat(history))
        answer = self._model.say(request)
        if isinstance(answer.result, Failure):
            return _billed(answer.result, answer)
        line = tidied(answer.result.text)
        understood, faults = parse_freely(line)
        if not understood.parts and not understood.hangs_up:
            said = "".join(f" {fault.marker} {fault.problem}." for fault in faults[:1] if fault.marker)
            message = f"The simulated caller said nothing that can be played.{said}"
            return _billed(Failure(FailureKind.UNREADABLE, "caller_line", message), answer)
        return CallerReply(line, understood.hangs_up, answer.usage, answer.cost_micro_usd)


def _request(context: PlayContext, turned: Turned, system: str, messages: tuple[Message, ...]) -> ChatRequest:
    limits = context.limits
    return ChatRequest(
        replace(turned, max_tokens=limits.max_reply_tokens),
        system,
        messages,
        key=str(context.workspace),
        within_s=limits.reply_s,
    )


def _billed(failure: Failure, answer: ChatAnswer) -> Failure:
    return replace(failure, usage=answer.usage, cost_micro_usd=answer.cost_micro_usd)
