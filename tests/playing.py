"""The smallest possible player: a scripted caller against a scripted agent, on the virtual clock, in memory.

It shows that the pure parts fit together and that the sample library can be played; the real runner keeps turns in rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qa_worker.domain.agent_under_test import AgentUnderTest, Reply
from qa_worker.domain.interruption import Cut, cut
from qa_worker.domain.markers import parse_line
from qa_worker.domain.moves import Move, Span, agent_span, caller_turn, interrupted, script
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Scenario
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

LATENCY_S = 0.9


@dataclass
class Played:
    """What came of it."""

    turns: list[Turn] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    completion: Completion = Completion.SCRIPT_ENDED
    unmatched: list[ToolCall] = field(default_factory=list)

    @property
    def transcript(self) -> Transcript:
        return Transcript(tuple(self.turns))

    @property
    def now_s(self) -> float:
        return max((turn.end_s or 0.0 for turn in self.turns), default=0.0)


def play(scenario: Scenario, under_test: AgentUnderTest) -> Played:
    """All fixed lines of the scenario, each answered by the agent's script."""
    played = Played()
    assert under_test.script is not None
    if under_test.greeting:
        _say(played, under_test.greeting, after_s=0.0)
    for move in script(map(parse_line, scenario.lines)):
        _caller(played, move)
        if move.hangs_up:
            played.completion = Completion.CALLER_HUNG_UP
            break
        reply = under_test.script.reply(played.told)
        _agent(played, under_test, reply)
        if reply.ends:
            played.completion = Completion.AGENT_ENDED
            break
    return played


def _caller(played: Played, move: Move) -> None:
    after_s, reaction_s = played.now_s, 0.2
    if move.interruption is not None:
        spoken = played.turns[-1]
        found = cut(spoken.text, move.interruption)
        played.cuts.append(found)
        if found.interrupts:
            agent, after_s = interrupted(Span(spoken.start_s or 0.0, spoken.end_s or 0.0), found)
            played.turns[-1] = Turn(Role.AGENT, found.history, agent.start_s, agent.end_s)
            reaction_s = 0.0
    played.told.append(move.told)
    if move.heard:
        played.turns.append(caller_turn(move, after_s=after_s, reaction_s=reaction_s))


def _agent(played: Played, under_test: AgentUnderTest, reply: Reply) -> None:
    now_s = played.now_s
    for call in reply.calls:
        earlier = [past for turn in played.turns for past in turn.tool_calls]
        answer = under_test.mocks.answer(call, earlier=earlier)
        if not answer.matched:
            played.unmatched.append(call)
        played.turns.append(Turn(Role.AGENT, "", now_s, now_s, tool_calls=(call,)))
        played.turns.append(Turn(Role.TOOL, answer.text, now_s, now_s + answer.after_s, is_error=answer.is_error))
        now_s += answer.after_s
    if reply.text:
        _say(played, reply.text, after_s=now_s)


def _say(played: Played, text: str, *, after_s: float) -> None:
    span = agent_span(text, after_s=after_s, latency_s=LATENCY_S)
    played.turns.append(Turn(Role.AGENT, text, span.start_s, span.end_s))
