"""A caller's line as it is played: cut where the agent gets the floor, with times on the run's clock.

The clock of a run against a simulated agent is virtual: nobody sleeps, the times advance by what was said and waited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from qa_worker.domain.interruption import Cut
from qa_worker.domain.markers import CallerLine, Interruption, Keys, Noise, Part, Silence, Speech
from qa_worker.domain.transcript import Role, Turn

WORDS_PER_MINUTE = 150.0
"""How fast people speak: the average of conversation in US English (National Center for Voice and Speech)."""
REACTION_S = 0.2
"""From the end of a turn to the caller's answer: the usual gap in ten languages (Stivers et al., PNAS 106, 2009)."""
END_OF_TURN_S = 3.0
"""A silence from which a voice platform takes the turn as over, whatever was said (LiveKit's endpointing `max_delay`)."""
YIELDS_S = 0.5
"""How long a caller must speak before a platform stops the agent (LiveKit's interruption `min_duration`)."""
LIVE_SILENCE_S = 30.0
"""The longest silence that is waited for in real time, towards a live agent."""
_KEY_S = 0.2
"""One key: 0.1 s of tone, 0.1 s of pause."""


@dataclass(frozen=True, slots=True)
class Move:
    """What the caller does in one go; the agent answers each, unless the caller hangs up.

    wait_s: silence before it, 0 for none. did: words, keys, and silences too short to end a turn, in order.
    """

    interruption: Interruption | None = None
    wait_s: float = 0.0
    did: tuple[Speech | Keys | Silence, ...] = ()
    noises: tuple[str, ...] = ()
    hangs_up: bool = False

    @property
    def text(self) -> str:
        """What is said aloud."""
        return " ".join(part.text for part in self.did if isinstance(part, Speech))

    @property
    def keys(self) -> str:
        """What is pressed."""
        return "".join(part.keys for part in self.did if isinstance(part, Keys))

    @property
    def hesitation_s(self) -> float:
        """How long nothing is said in between, and after the last word."""
        return sum(part.seconds for part in self.did if isinstance(part, Silence))

    @property
    def heard(self) -> str:
        """The caller's turn in the transcript. Silence is written down only where nothing else happens."""
        done = " ".join(_written(part for part in self.did if not isinstance(part, Silence)))
        return done or (f"[silent for {self.wait_s:g} seconds]" if self.wait_s else "")

    @property
    def told(self) -> str:
        """The same for an agent that reads instead of hearing, as a voice platform would tell it: every silence, too."""
        silent = _silent(self.wait_s) if self.wait_s else ""
        noise = f"[heard in the background: {', '.join(self.noises)}]" if self.noises else ""
        return " ".join(filter(None, (silent, noise, *_written(self.did))))


def _written(parts: Iterable[Speech | Keys | Silence]) -> Iterator[str]:
    """Words as they are, keys that are pressed one after the other as one note, silences as notes."""
    for kind, group in groupby(parts, key=type):
        alike = tuple(group)
        if kind is Keys:
            yield f"[pressed {' '.join(''.join(part.keys for part in alike if isinstance(part, Keys)))}]"
        elif kind is Silence:
            yield _silent(sum(part.seconds for part in alike if isinstance(part, Silence)))
        else:
            yield from (part.text for part in alike if isinstance(part, Speech))


def _silent(seconds: float) -> str:
    return f"[the caller was silent for {seconds:g} seconds]"


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in seconds since the call began."""

    start_s: float
    end_s: float


def moves(line: CallerLine) -> tuple[Move, ...]:
    """The line in moves: a silence of `END_OF_TURN_S` or more after something was done gives the agent the floor first.

    So the agent isn't blamed for a silence in which it had no chance to speak. Silences in a row count as one. A shorter
    one is part of the move, also at its end: nothing of a silence is lost.
    """
    done: list[Move] = []
    now = Move(interruption=line.interruption)
    for part in _joined(line.parts):
        match part:
            case Noise(kind):
                now = replace(now, noises=tuple(dict.fromkeys((*now.noises, kind))))
            case Silence(seconds) if not now.did:
                now = replace(now, wait_s=now.wait_s + seconds)
            case Silence(seconds) if seconds >= END_OF_TURN_S:
                done.append(now)
                now = Move(wait_s=seconds, noises=now.noises)
            case _:
                now = replace(now, did=(*now.did, part))
    return (*done, replace(now, hangs_up=line.hangs_up))


def _joined(parts: Iterable[Part]) -> Iterable[Part]:
    for kind, group in groupby(parts, key=type):
        if kind is Silence:
            yield Silence(sum(part.seconds for part in group if isinstance(part, Silence)))
        else:
            yield from group


def speech_s(text: str) -> float:
    """How long it takes to say this, in seconds."""
    return 60.0 * len(text.split()) / WORDS_PER_MINUTE


def caller_turn(move: Move, *, after_s: float, reaction_s: float = REACTION_S) -> Turn:
    """The move as a turn of the transcript; `after_s` is the moment from which the caller has the floor.

    `reaction_s` is 0 for a caller who interrupts: the moment is when they begin.

    A move without a word is a moment at the end of its silence, so that the silence counts as silence and the agent's
    answer is measured from there.
    """
    start = round(after_s + (move.wait_s or reaction_s), 3)
    lasts = speech_s(move.text) + move.hesitation_s + _KEY_S * len(move.keys)
    return Turn(Role.CALLER, move.heard, start, round(start + lasts, 3))


def agent_span(text: str, *, after_s: float, latency_s: float) -> Span:
    """When an agent speaks that answers `latency_s` after `after_s`."""
    start = round(after_s + latency_s, 3)
    return Span(start, round(start + speech_s(text), 3))


def interrupted(agent: Span, found: Cut) -> tuple[Span, float]:
    """When a cut turn ends, and when the caller begins to speak: the overlap is what a platform needs to fall silent."""
    whole = len(found.heard.split()) + len(found.unheard.split())
    share = len(found.heard.split()) / whole if whole else 1.0
    begins = round(agent.start_s + share * (agent.end_s - agent.start_s), 3)
    return Span(agent.start_s, round(min(agent.end_s, begins + YIELDS_S), 3)), begins


def live_wait_s(move: Move) -> float:
    """How long to keep silent towards a live agent before the move, in real seconds on its clock."""
    return min(move.wait_s, LIVE_SILENCE_S)


def live_pause_s(move: Move) -> float:
    """The same with the silences in the move: they are over, too, when a live agent is told of it all at once."""
    return min(move.wait_s + move.hesitation_s, LIVE_SILENCE_S)


def script(lines: Iterable[CallerLine]) -> Sequence[Move]:
    """All moves of a scripted caller, in order."""
    return [move for line in lines for move in moves(line)]
