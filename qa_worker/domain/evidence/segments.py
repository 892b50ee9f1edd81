"""Speech as segments: who speaks from when to when, and what for."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from qa_worker.domain.folding import words
from qa_worker.domain.transcript import Role, Transcript, Turn

JITTER_S = 0.1
"""Half of tau2's tick: an overlap this short is the clock's, not a person's."""
PAUSE_S = 1.0
"""A pause inside what one side says; tau2's caller waits that long before it takes the floor (`src/tau2/config.py`)."""
# "[cut off by the caller]", "[silent for 15 seconds]", "[inaudible]": written down by somebody, and said by nobody.
_NOTE = re.compile(r"\[[^\[\]]*\]")
_BACKCHANNELS = frozenset(
    (
        *("mhm", "mm", "mmhm", "mm hmm", "mm hm", "hmm", "uh huh", "uhhuh", "aha", "ah", "oh", "oh okay", "i see"),
        *("yeah", "yep", "yes", "okay", "ok", "right", "sure", "got it", "alright", "all right", "great", "cool"),
    )
)


class Kind(StrEnum):
    """What a stretch of speech is for. An aside (a cough, words to someone else) claims no floor but may be answered."""

    SPEECH = "speech"
    BACKCHANNEL = "backchannel"
    ASIDE = "aside"


@dataclass(frozen=True, slots=True)
class Segment:
    """One side speaking without a break, from `start_s` up to `end_s` (exclusive). `turn` numbers its first turn."""

    speaker: Role
    start_s: float
    end_s: float
    kind: Kind = Kind.SPEECH
    word_count: int = 0
    turn: int = 0


def segments_of(transcript: Transcript) -> tuple[Segment, ...] | None:
    """The call's speech in order of start, or None unless every spoken turn is timed and some time passes.

    One turn without times would show up as silence and as a missing answer, so that nothing is measured then.
    Consecutive turns of one side with less than `PAUSE_S` between them are one segment, the pause included: recognisers
    cut speech into pieces. A word of assent while the agent goes on speaking is a back-channel.
    """
    spoken = list(transcript.spoken())
    if not all(_usable(turn) for _, turn in spoken):
        return None
    single = [_segment(number, turn) for number, turn in spoken]
    if not any(segment.end_s > segment.start_s for segment in single):
        return None
    merged: list[Segment] = []
    for segment in sorted(single, key=lambda s: (s.start_s, s.turn)):
        last = merged[-1] if merged else None
        if last and last.speaker is segment.speaker and segment.start_s - last.end_s < PAUSE_S:
            whole = max(last.end_s, segment.end_s)
            merged[-1] = replace(last, end_s=whole, word_count=last.word_count + segment.word_count)
        else:
            merged.append(segment)
    floor = Floor(s for s in merged if s.speaker is Role.AGENT)
    return tuple(_as_backchannel(s, transcript, floor) for s in merged)


def _usable(turn: Turn) -> bool:
    return turn.start_s is not None and turn.end_s is not None and turn.start_s <= turn.end_s


def _segment(number: int, turn: Turn) -> Segment:
    start, end = turn.start_s or 0.0, turn.end_s or 0.0
    return Segment(turn.role, start, end, word_count=len(_NOTE.sub(" ", turn.text).split()), turn=number)


def _as_backchannel(segment: Segment, transcript: Transcript, agent: Floor) -> Segment:
    over = agent.holder(segment.start_s) if segment.speaker is Role.CALLER else None
    if over is None or over is not agent.holder(segment.end_s):
        return segment
    said = words(transcript.turns[segment.turn].text)
    return replace(segment, kind=Kind.BACKCHANNEL) if said in _BACKCHANNELS else segment


def between(start_s: float, end_s: float) -> float:
    """Seconds from one moment to another, to the microsecond, so that 12.3 - 10.3 is 2.0 and not a hair more."""
    return round(end_s - start_s, 6)


class Floor:
    """When one side speaks, to be asked about a moment."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = sorted(segments, key=lambda s: (s.start_s, s.end_s))
        self._starts = [s.start_s for s in self._segments]

    def holder(self, moment_s: float) -> Segment | None:
        """The segment that goes on at this moment, with more than jitter of it left."""
        place = bisect_right(self._starts, moment_s) - 1
        found = self._segments[place] if place >= 0 else None
        return found if found and moment_s < found.end_s - JITTER_S else None

    def next_from(self, moment_s: float) -> Segment | None:
        """The first segment that starts at or after this moment."""
        place = bisect_left(self._starts, moment_s)
        return self._segments[place] if place < len(self._segments) else None
