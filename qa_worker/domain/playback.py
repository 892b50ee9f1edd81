"""A run's conversation as its rows tell it: what has happened, what comes next, and how a turn is written down.

Everything follows from the rows, so that any process goes on with a run at the turn where it stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from qa_worker.domain.evaluation import Usage
from qa_worker.domain.expectations import goal_reached
from qa_worker.domain.interruption import Cut, cut_among
from qa_worker.domain.markers import AfterWords, Interruption, parse_freely
from qa_worker.domain.moves import (
    REACTION_S,
    Move,
    Span,
    agent_span,
    caller_turn,
    interrupted,
    live_pause_s,
    live_wait_s,
    moves,
)
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Limits, Play, Scenario
from qa_worker.domain.transcript import Role, Transcript, Turn, from_json, to_json


@dataclass(frozen=True, slots=True)
class Line:
    """A caller's line as it was written, with its markers. `number` counts the lines of a run from 0.

    `done`: the caller has nothing to say after it.
    """

    text: str
    number: int
    done: bool = False


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    """One turn of a run: as it was heard, with times in seconds on the run's clock, and what no transcript says.

    Of the caller: `told` is how the agent was told of it, `line` and `move` say where it comes from. Of the agent:
    `unheard` is the rest that the caller cut off; `ends` and `transferred` as the agent's player said. `faults` are those
    of the test, not of the agent: what the caller's player wrote and nobody could play, an interruption that didn't
    happen, a tool call for which the agent's file has no answer. `lost`: nothing happened, a reply failed that was billed.
    """

    turn: Turn
    told: str = ""
    unheard: str = ""
    line: Line | None = None
    move: int = 0
    ends: bool = False
    transferred: bool = False
    faults: tuple[str, ...] = ()
    lost: bool = False
    usage: Usage = field(default_factory=Usage)
    cost_micro_usd: int | None = 0

    @property
    def said(self) -> bool:
        """Whether there is anything of it in a transcript: a background noise, or an agent's silence, is no turn."""
        return bool(self.turn.text.strip() or self.turn.tool_calls) or self.turn.role is Role.TOOL

    @property
    def said_aloud(self) -> bool:
        """Whether there are words in it."""
        return bool(self.turn.text.strip()) and self.turn.role is not Role.TOOL


Rows = Sequence[PlayedTurn]
Written = Mapping[int, PlayedTurn]
"""Rows by their index: new ones, and perhaps the agent's turn before them, now that it was cut."""


@dataclass(frozen=True, slots=True)
class Greet:
    """The agent speaks first."""

    text: str


@dataclass(frozen=True, slots=True)
class AskCaller:
    """The caller has the floor and needs a line."""

    number: int


@dataclass(frozen=True, slots=True)
class MakeMove:
    """The caller has the floor, and goes on with a line that is known."""

    line: Line
    move: int


@dataclass(frozen=True, slots=True)
class AskAgent:
    """The agent has the floor; `history` is what came before the move that it was `told` of."""

    history: tuple[Turn, ...]
    told: str


@dataclass(frozen=True, slots=True)
class Over:
    """The conversation has come to its end."""

    completion: Completion


Step = Greet | AskCaller | MakeMove | AskAgent | Over


def next_step(rows: Rows, scenario: Scenario, *, greeting: str, limits: Limits) -> Step:
    """What comes after these rows."""
    rows = [row for row in rows if not row.lost]
    if not rows:
        return Greet(greeting) if greeting else AskCaller(0)
    last = rows[-1]
    over = _ended_by(last) or (Completion.TIMEOUT if now_s(rows) >= limits.call_s else None)
    if over is not None:
        return Over(over)
    if last.turn.role is Role.CALLER:
        return AskAgent(history_of_agent(rows[:-1]), last.told)
    return _callers(rows, scenario, limits)


def _ended_by(last: PlayedTurn) -> Completion | None:
    if last.transferred:
        return Completion.TRANSFERRED
    if last.ends:
        return Completion.AGENT_ENDED
    if last.line is not None and moves_of(last.line)[last.move].hangs_up:
        return Completion.CALLER_HUNG_UP
    return None


def _callers(rows: Rows, scenario: Scenario, limits: Limits) -> Step:
    floors = [row for row in rows if row.line is not None]
    if floors and floors[-1].line is not None:
        last, line = floors[-1], floors[-1].line
        following = None if last.move + 1 == len(moves_of(line)) else MakeMove(line, last.move + 1)
        if following is None and (over := _satisfied(rows, line, scenario)):
            return Over(over)
        if len(floors) >= limits.max_turns:
            return Over(Completion.MAX_TURNS)
        return following or AskCaller(line.number + 1)
    return AskCaller(0)


def _satisfied(rows: Rows, line: Line, scenario: Scenario) -> Completion | None:
    """How a conversation ends in which this line was the last, or was enough."""
    # Fixed lines are all said: what comes after the goal may be what the scenario is about. They may play a free
    # scenario, too, where no model is at hand.
    fixed = scenario.play is Play.SCRIPT or line.text in scenario.lines
    if not fixed and goal_reached(transcript_of(rows), scenario.ends):
        return Completion.GOAL_REACHED
    if not line.done:
        return None
    return Completion.SCRIPT_ENDED if fixed else Completion.CALLER_HUNG_UP


def ended_without_a_word(scenario: Scenario) -> Completion:
    """How a conversation ends whose caller has nothing more to say."""
    return Completion.CALLER_HUNG_UP if scenario.play is Play.FREE else Completion.SCRIPT_ENDED


def moves_of(line: Line) -> tuple[Move, ...]:
    """The line in moves; of markers that can't be understood nothing is played."""
    return moves(parse_freely(line.text)[0])


def playable(line: Line) -> bool:
    """Whether the caller says or does anything in this line."""
    return any(move.told or move.hangs_up for move in moves_of(line))


def now_s(rows: Rows) -> float:
    """Where the run's clock stands."""
    return max((row.turn.end_s or 0.0 for row in rows), default=0.0)


def pause_s(line: Line, move: int, *, live: bool) -> float:
    """How long to keep silent in real time for this move: not at all towards a simulated agent."""
    return live_pause_s(moves_of(line)[move]) if live else 0.0


def greeted(text: str) -> Written:
    """The agent's greeting."""
    span = agent_span(text, after_s=0.0, latency_s=0.0)
    return {0: PlayedTurn(Turn(Role.AGENT, text, span.start_s, span.end_s))}


def moved(rows: Rows, line: Line, move: int, *, live: bool, usage: Usage, cost_micro_usd: int | None) -> Written:
    """The caller's turn that this move makes, and the agent's turn before it where the caller cut that."""
    made = moves_of(line)[move]
    if live:
        made = replace(made, wait_s=live_wait_s(made))
    written: dict[int, PlayedTurn] = {}
    after_s, reaction_s = now_s(rows), REACTION_S
    found = _cut(rows, made.interruption)
    if found is not None:
        written, after_s = found
        reaction_s = 0.0
    written[len(rows)] = PlayedTurn(
        caller_turn(made, after_s=after_s, reaction_s=reaction_s),
        told=made.told,
        line=line,
        move=move,
        faults=(*(_unplayed(line) if move == 0 else ()), *_not_interrupted(made.interruption, found)),
        usage=usage,
        cost_micro_usd=cost_micro_usd,
    )
    return written


def _unplayed(line: Line) -> tuple[str, ...]:
    """What the line holds that could not be played, and was not spoken either."""
    faults = parse_freely(line.text)[1]
    return tuple(f"{fault.marker} {fault.problem}".strip() for fault in faults if not fault.understood)


def _not_interrupted(at: Interruption | None, found: object) -> tuple[str, ...]:
    """That nobody was interrupted although the caller was to do it, so that this was not tested."""
    if at is None or found is not None:
        return ()
    if isinstance(at, AfterWords):
        return (f"nobody was interrupted: the agent's turn was over before {at.count} words and more",)
    return (f'nobody was interrupted: the agent did not say "{at.phrase}" with more to come',)


def _cut(rows: Rows, at: Interruption | None) -> tuple[dict[int, PlayedTurn], float] | None:
    """The agent's rows that are heard otherwise when the caller interrupts, and when that is; None where nobody does.

    What the agent was to say later is dropped. The tools that it had called by then stay: they were used.
    """
    places = _spoken_last(rows)
    if at is None or not places:
        return None
    number, found = cut_among([rows[place].turn.text for place in places], at)
    if not found.interrupts:
        return None
    here = places[number]
    spoken = rows[here].turn
    own = Cut(found.heard, spoken.text.strip()[len(found.heard) :].strip())
    span, begins_s = interrupted(Span(spoken.start_s or 0.0, spoken.end_s or 0.0), own)
    turn = replace(spoken, text=found.history, start_s=span.start_s, end_s=span.end_s)
    written = {here: replace(rows[here], turn=turn, unheard=found.unheard)}
    for place in range(here + 1, len(rows)):
        later = rows[place]
        text = later.turn.text if later.turn.role is Role.TOOL else ""
        written[place] = replace(later, turn=replace(later.turn, text=text, start_s=None, end_s=None))
    return written, begins_s


def _spoken_last(rows: Rows) -> list[int]:
    """Where the agent has spoken since the caller did."""
    began = max((place for place, row in enumerate(rows) if row.turn.role is Role.CALLER), default=-1) + 1
    return [
        place for place in range(began, len(rows)) if rows[place].turn.role is Role.AGENT and rows[place].said_aloud
    ]


def replied(
    rows: Rows,
    turns: Sequence[Turn],
    *,
    latency_s: float,
    last: PlayedTurn,
    ready_s: Sequence[float] = (),
    faults: Mapping[int, str] | None = None,
) -> Written:
    """The agent's turns with times: words when they were there and the words before them had been said.

    `ready_s` says when each of the turns was there, in seconds since the floor was the agent's; without it all were after
    `latency_s`. Tools get no times, for nobody heard them; but a reply that ends without words takes its time all the
    same, which stands with its last turn. `last` gives that one what is said of the whole reply; `faults` are those of the
    test, by the place in `turns`.
    """
    floor_s = after_s = now_s(rows)
    given = turns or (Turn(Role.AGENT, ""),)
    ready = [floor_s + seconds for seconds in (ready_s or (latency_s,) * len(given))]
    timed: list[Turn] = []
    for turn, there_s in zip(given, ready, strict=True):
        if turn.role is Role.AGENT and turn.text.strip():
            span = agent_span(turn.text, after_s=max(there_s, after_s), latency_s=0.0)
            timed.append(replace(turn, start_s=span.start_s, end_s=span.end_s))
            after_s = span.end_s
        else:
            timed.append(turn)
    ends_s = round(ready[-1], 3)
    if not timed[-1].timed and ends_s > after_s:
        timed[-1] = replace(timed[-1], start_s=ends_s, end_s=ends_s)
    blank = PlayedTurn(timed[-1])
    found = {number: (fault,) for number, fault in (faults or {}).items()}
    return {
        len(rows) + number: replace(kept, turn=turn, faults=found.get(number, ()))
        for number, (turn, kept) in enumerate(zip(timed, [*[blank] * (len(timed) - 1), last], strict=True))
    }


def lost(rows: Rows, *, usage: Usage, cost_micro_usd: int | None) -> Written:
    """A reply that failed and was billed all the same: it stands in the books, and in no conversation."""
    return {len(rows): PlayedTurn(Turn(Role.AGENT, ""), lost=True, usage=usage, cost_micro_usd=cost_micro_usd)}


def merged(rows: Rows, written: Written) -> list[PlayedTurn]:
    """The rows with what was written."""
    after = list(rows)
    for index in sorted(written):
        after[index : index + 1] = [written[index]]
    return after


def transcript_of(rows: Rows) -> Transcript:
    """What was heard, for judge and evidence."""
    return Transcript(tuple(row.turn for row in rows if row.said))


def unheard_of(rows: Rows) -> dict[int, str]:
    """What was cut off of each agent turn, by its number in the transcript."""
    said = [row for row in rows if row.said]
    return {number: row.unheard for number, row in enumerate(said) if row.unheard}


def history_of_agent(rows: Rows) -> tuple[Turn, ...]:
    """What the agent knows of: the caller's turns as it was told of them, its own as far as they were heard."""
    told = (replace(row.turn, text=row.told) if row.line is not None else row.turn for row in rows)
    return tuple(turn for turn in told if turn.text.strip() or turn.tool_calls or turn.role is Role.TOOL)


def history_of_caller(rows: Rows) -> tuple[Turn, ...]:
    """What the caller said and heard: words only."""
    return tuple(replace(turn, tool_calls=()) for _, turn in transcript_of(rows).spoken())


def played_to_json(row: PlayedTurn) -> dict[str, Any]:
    """The stored form of a turn, without its usage; `played_from_json` is the inverse."""
    stored: dict[str, Any] = {"turn": to_json(Transcript((row.turn,)))[0]}
    if row.line is not None:
        stored["line"] = {"text": row.line.text, "number": row.line.number, "done": row.line.done}
    for name in ("told", "unheard", "move", "ends", "transferred", "lost"):
        if value := getattr(row, name):
            stored[name] = value
    if row.faults:
        stored["faults"] = list(row.faults)
    return stored


def played_from_json(stored: Mapping[str, Any]) -> PlayedTurn:
    """A turn from its stored form."""
    given = {name.name: stored[name.name] for name in fields(PlayedTurn) if name.name in stored}
    given["faults"] = tuple(stored.get("faults", ()))
    given["turn"] = from_json([stored["turn"]]).turns[0]
    if "line" in stored:
        given["line"] = Line(**stored["line"])
    return PlayedTurn(**given)
