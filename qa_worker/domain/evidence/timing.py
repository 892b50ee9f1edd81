"""Who spoke when: latency, interruptions both ways, silence, shares of speech.

The definitions of tau2 (`docs/interaction-metrics.md` of sierra-research/tau2-bench) in continuous time, with the
additions of EVA (overlap) and of the common dashboards (talk share, dead air, words per minute). Where this differs
from tau2, the function that differs says so.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qa_worker.domain.evidence.excerpts import cut
from qa_worker.domain.evidence.facts import Check, Fact, Latency, Timing
from qa_worker.domain.evidence.segments import JITTER_S, Floor, Kind, Segment, between
from qa_worker.domain.rubric import Checks
from qa_worker.domain.transcript import Role, Transcript

YIELD_WINDOW_S = 2.0
"""tau2's no-yield window."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What followed a caller's turn: the agent's next segment, or None where the caller had to speak again first."""

    asked: Segment
    answer: Segment | None

    @property
    def latency_s(self) -> float | None:
        """Seconds from the end of the turn to the answer; an answer within the clock's jitter counts as 0."""
        return None if self.answer is None else max(0.0, between(self.asked.end_s, self.answer.start_s))


def answers(segments: Sequence[Segment]) -> tuple[Answer, ...]:
    """One entry for each caller turn that expects an answer [tau2, response events].

    Back-channels expect none, nor does a turn at whose end the agent already speaks (an interruption is counted apart,
    not averaged). The last turn of a call, with nothing after it, is neither answered nor unanswered. The greeting
    comes before any caller turn and so answers none. Unlike tau2, an answer in the very moment in which the turn ends
    is an answer with latency 0; tau2's ticks make it an interruption.
    """
    agent = Floor(s for s in segments if s.speaker is Role.AGENT)
    asked = (s for s in segments if s.speaker is Role.CALLER and s.kind is not Kind.BACKCHANNEL)
    expecting = sorted((s for s in asked if not _talked_over_at_end(s, agent)), key=lambda s: s.start_s)
    starts = [s.start_s for s in expecting]
    found = []
    for place, turn in enumerate(expecting, start=1):
        answer = agent.next_from(turn.end_s - JITTER_S)
        following = bisect_left(starts, turn.end_s, lo=place)
        again_s = starts[following] if following < len(starts) else math.inf
        if answer is not None and answer.start_s <= again_s:
            found.append(Answer(turn, answer))
        elif following < len(starts):
            found.append(Answer(turn, None))
    return tuple(found)


def _talked_over_at_end(turn: Segment, agent: Floor) -> bool:
    holder = agent.holder(turn.end_s)
    return holder is not None and holder.start_s < turn.end_s - JITTER_S


def agent_interruptions(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Agent segments that start while the caller speaks [tau2, I_A]; both starting at once counts, as in tau2."""
    callers = Floor(s for s in segments if s.speaker is Role.CALLER)
    return tuple(s for s in segments if s.speaker is Role.AGENT and callers.holder(s.start_s))


def caller_interruptions(segments: Sequence[Segment]) -> tuple[tuple[Segment, float], ...]:
    """Caller segments that start while the agent speaks, with the seconds until the agent was silent [tau2, L_Y].

    Back-channels and asides are none.
    """
    agent = Floor(s for s in segments if s.speaker is Role.AGENT)
    plain = (s for s in segments if s.speaker is Role.CALLER and s.kind is Kind.SPEECH)
    held = ((s, agent.holder(s.start_s)) for s in plain)
    return tuple((s, between(s.start_s, holder.end_s)) for s, holder in held if holder is not None)


def silences(segments: Sequence[Segment]) -> Iterator[tuple[Segment, Segment, float]]:
    """Each stretch in which nobody speaks, between the first word and the last: who ended it is the second segment."""
    ordered = sorted(segments, key=lambda s: s.start_s)
    if not ordered:
        return
    last = ordered[0]
    for following in ordered[1:]:
        if following.start_s > last.end_s:
            yield last, following, between(last.end_s, following.start_s)
        if following.end_s > last.end_s:
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
        overlap_s=max(0.0, between(_length(everyone), agent_s + caller_s)),
        talk_share=_share(agent_s, agent_s + caller_s),
        dead_air_s=math.fsum(gap for gap in gaps if gap > dead_air_s),
        longest_silence_s=max(gaps, default=0.0),
        agent_words_per_minute=_words_per_minute(segments, Role.AGENT, agent_s),
        caller_words_per_minute=_words_per_minute(segments, Role.CALLER, caller_s),
        duration_s=between(everyone[0][0], everyone[-1][1]) if everyone else 0.0,
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


def facts(transcript: Transcript, segments: Sequence[Segment], checks: Checks) -> Iterator[Fact]:
    """Slow answers, dead air and the agent's interruptions, each at the agent's turn.

    Dead air is a fact only where it was the agent's turn to speak; `Timing.dead_air_s` counts every silence.
    """
    for found in answers(segments):
        if found.answer and (found.latency_s or 0.0) > checks.slow_response_s:
            detail = f"{found.latency_s:.1f} s from the end of the caller's turn to the answer"
            yield _fact(Check.SLOW_RESPONSE, found.answer, transcript, detail)
    for _, following, gap in silences(segments):
        if following.speaker is Role.AGENT and gap > checks.dead_air_s:
            yield _fact(Check.DEAD_AIR, following, transcript, f"{gap:.1f} s of silence before the agent speaks")
    for segment in agent_interruptions(segments):
        yield _fact(Check.AGENT_INTERRUPTS, segment, transcript, "the agent starts while the caller is speaking")


def _fact(check: Check, segment: Segment, transcript: Transcript, detail: str) -> Fact:
    return Fact(check, detail, turn=segment.turn, quote=cut(transcript.turns[segment.turn].text))


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
