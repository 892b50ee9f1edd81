"""What a run's rows say beyond its transcript: what was measured there at all, and what a judge has to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from qa_worker.domain.evidence.excerpts import of_call
from qa_worker.domain.evidence.facts import Check, Evidence, Fact
from qa_worker.domain.playback import PlayedTurn, Rows, transcript_of
from qa_worker.domain.transcript import Role, Transcript


def as_played(evidence: Evidence, rows: Rows) -> Evidence:
    """The evidence of a run's transcript, in the light of how it was played.

    How fast an agent yields isn't measured: words are exchanged in writing, and the moment in which the agent falls
    silent is our own constant. That a tool failed for which the test has no answer is not the agent's fault.
    """
    timing = evidence.timing
    if timing is not None:
        timing = replace(timing, yield_mean_s=None, yield_rate=None)
    said = [row for row in rows if row.said]
    unanswered = [number for number, row in enumerate(said) if row.turn.role is Role.TOOL and row.faults]
    return replace(
        evidence,
        facts=_without(evidence.facts, unanswered, transcript_of(rows)),
        timing=timing,
        notes=(*evidence.notes, *_interruptions(said), *map(_unanswered, unanswered)),
    )


def _without(facts: Sequence[Fact], unanswered: Sequence[int], transcript: Transcript) -> tuple[Fact, ...]:
    """The facts but for those that a tool failed only because the test had no answer for it."""
    excused = {(use.turn, of_call(use.call)) for use in transcript.tool_uses() if use.result_turn in unanswered}
    return tuple(
        fact for fact in facts if fact.check is not Check.FAILED_TOOL_CALL or (fact.turn, fact.quote) not in excused
    )


def _unanswered(number: int) -> str:
    return f"turn {number} is an error because the test had no answer for that tool call; it is not the agent's fault"


def _interruptions(said: Sequence[PlayedTurn]) -> Iterator[str]:
    for number, row in enumerate(said):
        if row.unheard:
            later = list(enumerate(said))[number + 1 :]
            answer = next((at for at, other in later if other.turn.role is Role.AGENT and other.said_aloud), None)
            judged = f"; see whether turn {answer} gives way and answers what they said" if answer is not None else ""
            yield f"in turn {number} the caller interrupted the agent, and the rest of it was never heard{judged}"
