"""Both sides played from fixed words: for demos, for tests, and for scenarios that leave nothing to chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qa_worker.adapters.agents.tools import close, mocked
from qa_worker.application.playing import AgentReply, CallerReply, PlayContext
from qa_worker.domain.agent_under_test import Script
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.transcript import Role, Turn

LATENCY_S = 0.9
"""From the end of the caller's words to the agent's: what a good voice agent takes, before its tools."""


class ScriptedAgent:
    """Implements the port `AgentPlayer` with the script of an agent's file."""

    def __init__(self, script: Script | None) -> None:
        """Raises InvalidInput where there is no script."""
        if script is None:
            raise InvalidInput(
                "script", "is missing in the agent's file", "Add a script, or let a model play the agent"
            )
        self._script = script

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        """See the port."""
        heard = [turn.text for turn in history if turn.role is Role.CALLER]
        reply = self._script.reply([*heard, told])
        turns: list[Turn] = []
        ready_s: list[float] = []
        faults: dict[int, str] = {}
        elapsed_s = LATENCY_S
        for number, call in enumerate(reply.calls):
            named = replace(call, id=call.id or f"{len(heard)}-{number}")
            (answered,) = mocked(context.agent, (named,), before=(*history, *turns))
            turns += [Turn(Role.AGENT, "", tool_calls=(named,)), answered.turn]
            ready_s += [elapsed_s, elapsed_s + answered.took_s]
            faults |= {len(turns) - 1: answered.fault} if answered.fault else {}
            elapsed_s += answered.took_s
        if reply.text:
            turns.append(Turn(Role.AGENT, reply.text))
            ready_s.append(elapsed_s)
        ends, transferred = close(turns)
        ended = reply.ends or ends
        return AgentReply(tuple(turns), elapsed_s, ended, transferred, ready_s=tuple(ready_s), faults=faults)


class ScriptedCaller:
    """Implements the port `CallerPlayer` with the fixed lines of the scenario."""

    name = "script"

    def line(self, context: PlayContext, history: Sequence[Turn], number: int) -> CallerReply:  # noqa: ARG002 - the port's
        """See the port."""
        lines = context.scenario.lines
        if number >= len(lines):
            return CallerReply("", done=True)
        return CallerReply(lines[number], done=number == len(lines) - 1)
