"""Who spoke when: latency, interruptions both ways, silence, shares of speech.

The definitions of tau2 (`docs/interaction-metrics.md` of sierra-research/tau2-bench) in continuous time, with the
additions of EVA (overlap) and of the common dashboards (talk share, dead air, words per minute). Where this differs
from tau2, the function that differs says so.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from qa_worker.domain.evidence.facts import Latency, Timing
from qa_worker.domain.folding import words
from qa_worker.domain.transcript import Role, Transcript, Turn

YIELD_WINDOW_S = 2.0
"""tau2's no-yield window."""
JITTER_S = 0.1
"""Half of tau2's tick: an overlap this short is the clock's, not a person's."""
PAUSE_S = 1.0
"""A pause inside what one side says; tau2's caller waits that long before it takes the floor (`src/tau2/config.py`)."""
_QUOTE_CHARACTERS = 300

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What followed a caller's turn: the agent's next segment, or None where the caller had to speak again first."""

    asked: Segment
    answer: Segment | None

    @property
    def latency_s(self) -> float | None:
        """Seconds from the end of the turn to the answer; an answer within the clock's jitter counts as 0."""
        return None if self.answer is None else max(0.0, self.answer.start_s - self.asked.end_s)


def segments_of(transcript: Transcript) -> tuple[Segment, ...] | None:
    """The call's speech in order of start, or None unless every spoken turn is timed.

    One turn without times would show up as silence and as a missing answer, so that nothing is measured then.
    Consecutive turns of one side with less than `PAUSE_S` between them are one segment: recognisers cut speech into
    pieces. A word of assent while the agent goes on speaking is a back-channel.
    """
    spoken = list(transcript.spoken())
    if not spoken or not all(_usable(turn) for _, turn in spoken):
        return None
    merged: list[Segment] = []
    for segment in sorted((_segment(number, turn) for number, turn in spoken), key=lambda s: (s.start_s, s.turn)):
        last = merged[-1] if merged else None
        if last and last.speaker is segment.speaker and segment.start_s - last.end_s < PAUSE_S:
            whole = max(last.end_s, segment.end_s)
            merged[-1] = replace(last, end_s=whole, word_count=last.word_count + segment.word_count)
        else:
            merged.append(segment)
    floor = _Floor(s for s in merged if s.speaker is Role.AGENT)
    return tuple(_as_backchannel(s, transcript, floor) for s in merged)


def _usable(turn: Turn) -> bool:
    return turn.start_s is not None and turn.end_s is not None and turn.start_s <= turn.end_s


def _segment(number: int, turn: Turn) -> Segment:
    start, end = turn.start_s or 0.0, turn.end_s or 0.0
    return Segment(turn.role, start, end, word_count=len(turn.text.split()), turn=number)


def _as_backchannel(segment: Segment, transcript: Transcript, agent: _Floor) -> Segment:
    said = words(transcript.turns[segment.turn].text)
    if segment.speaker is Role.CALLER and said in _BACKCHANNELS and agent.holder(segment.start_s):
        return replace(segment, kind=Kind.BACKCHANNEL)
    return segment


class _Floor:
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


def answers(segments: Sequence[Segment]) -> tuple[Answer, ...]:
    """One entry for each caller turn that expects an answer [tau2, response events].

    Back-channels expect none, nor does a turn at whose end the agent already speaks (an interruption is counted apart,
    not averaged). The last turn of a call, with nothing after it, is neither answered nor unanswered. The agent's
    greeting comes before any caller turn and so answers none. Unlike tau2, an answer in the very moment in which the
    turn ends is an answer with latency 0; tau2's ticks make it an interruption.
    """
    agent = _Floor(s for s in segments if s.speaker is Role.AGENT)
    asked = [s for s in segments if s.speaker is Role.CALLER and s.kind is not Kind.BACKCHANNEL]
    expecting = [s for s in asked if not _talked_over_at_end(s, agent)]
    callers = _Floor(expecting)
    found = []
    for turn in expecting:
        answer = agent.next_from(turn.end_s - JITTER_S)
        again = callers.next_from(max(turn.end_s, math.nextafter(turn.start_s, math.inf)))
        if answer is not None and (again is None or answer.start_s <= again.start_s):
            found.append(Answer(turn, answer))
        elif again is not None:
            found.append(Answer(turn, None))
    return tuple(found)


def _talked_over_at_end(turn: Segment, agent: _Floor) -> bool:
    holder = agent.holder(turn.end_s)
    return holder is not None and holder.start_s < turn.end_s - JITTER_S


def agent_interruptions(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Agent segments that start while the caller speaks [tau2, I_A]; both starting at once counts, as in tau2."""
    callers = _Floor(s for s in segments if s.speaker is Role.CALLER)
    return tuple(s for s in segments if s.speaker is Role.AGENT and callers.holder(s.start_s))


def caller_interruptions(segments: Sequence[Segment]) -> tuple[tuple[Segment, float], ...]:
    """Caller segments that start while the agent speaks, with the seconds until the agent was silent [tau2, L_Y].

    Back-channels and asides are none.
    """
    agent = _Floor(s for s in segments if s.speaker is Role.AGENT)
    plain = (s for s in segments if s.speaker is Role.CALLER and s.kind is Kind.SPEECH)
    held = ((s, agent.holder(s.start_s)) for s in plain)
    return tuple((s, holder.end_s - s.start_s) for s, holder in held if holder is not None)


def silences(segments: Sequence[Segment]) -> Iterator[tuple[Segment, Segment, float]]:
    """Each stretch in which nobody speaks, between the first word and the last: who ended it is the second segment."""
    ordered = sorted(segments, key=lambda s: s.start_s)
    last = ordered[0] if ordered else None
    for following in ordered[1:]:
        if last is not None and following.start_s > last.end_s:
            yield last, following, following.start_s - last.end_s
        if last is None or following.end_s > last.end_s:
            last = following


def measure(segments: Sequence[Segment], *, dead_air_s: float) -> Timing:
    """The figures of one call. Segments need no order; `dead_air_s` is the shortest silence that counts as dead air.

    talk_share, words_per_minute: over the time in which that side speaks, each moment once. overlap_s: sum of the
    moments in which both speak [eva: intersections of segments, not of their range]. yield_mean_s is the mean over all
    interruptions, also those that were not yielded to; tau2 averages only the yielded ones.
    """
    agent = _spans(s for s in segments if s.speaker is Role.AGENT)
    caller = _spans(s for s in segments if s.speaker is Role.CALLER)
    everyone = _spans(segments)
    gaps = [gap for _, _, gap in silences(segments)]
    found = answers(segments)
    yields = [seconds for _, seconds in caller_interruptions(segments)]
    agent_s, caller_s = _length(agent), _length(caller)
    return Timing(
        response_latency=latency([a.latency_s for a in found if a.latency_s is not None]),
        response_rate=_share(sum(a.answer is not None for a in found), len(found)),
        caller_turns=len(found),
        agent_interruptions=len(agent_interruptions(segments)),
        caller_interruptions=len(yields),
        yield_mean_s=math.fsum(yields) / len(yields) if yields else None,
        yield_rate=_share(sum(seconds <= YIELD_WINDOW_S for seconds in yields), len(yields)),
        overlap_s=max(0.0, agent_s + caller_s - _length(everyone)),
        talk_share=_share(agent_s, agent_s + caller_s),
        dead_air_s=math.fsum(gap for gap in gaps if gap > dead_air_s),
        longest_silence_s=max(gaps, default=0.0),
        agent_words_per_minute=_words_per_minute(segments, Role.AGENT, agent_s),
        caller_words_per_minute=_words_per_minute(segments, Role.CALLER, caller_s),
        duration_s=everyone[-1][1] - everyone[0][0] if everyone else 0.0,
    )


def latency(seconds: Sequence[float]) -> Latency | None:
    """Mean, percentiles and maximum; None for no values."""
    if not seconds:
        return None
    return Latency(
        n=len(seconds),
        mean_s=math.fsum(seconds) / len(seconds),
        p50_s=percentile(seconds, 0.50),
        p95_s=percentile(seconds, 0.95),
        max_s=max(seconds),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile with linear interpolation between closest ranks (Hyndman and Fan's type 7, numpy's default).

    With few values the high percentiles lie near the maximum: P95 of three values is no tail.
    """
    ordered = sorted(values)
    rank = (len(ordered) - 1) * share
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _spans(segments: Iterable[Segment]) -> list[tuple[float, float]]:
    """The moments that the segments cover, as spans in order that don't touch."""
    spans: list[tuple[float, float]] = []
    for start, end in sorted((s.start_s, s.end_s) for s in segments):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def _length(spans: Sequence[tuple[float, float]]) -> float:
    return math.fsum(end - start for start, end in spans)


def _words_per_minute(segments: Sequence[Segment], speaker: Role, spoken_s: float) -> float | None:
    count = sum(s.word_count for s in segments if s.speaker is speaker)
    return _share(60.0 * count, spoken_s) if count else None
