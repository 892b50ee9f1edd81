"""What a run's rows say beyond its transcript: what was measured there at all, and what a judge has to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.playback import PlayedTurn, Rows
from qa_worker.domain.transcript import Role


def as_played(evidence: Evidence, rows: Rows) -> Evidence:
    """The evidence of a run's transcript, in the light of how it was played.

    How fast an agent yields isn't measured: words are exchanged in writing, and the moment in which the agent falls
    silent is our own constant.
    """
    timing = evidence.timing
    if timing is not None:
        timing = replace(timing, yield_mean_s=None, yield_rate=None)
    said = [row for row in rows if row.said]
    return replace(evidence, timing=timing, notes=(*evidence.notes, *_interruptions(said)))


def _interruptions(said: Sequence[PlayedTurn]) -> Iterator[str]:
    for number, row in enumerate(said):
        if row.unheard:
            later = list(enumerate(said))[number + 1 :]
            answer = next((at for at, other in later if other.turn.role is Role.AGENT and other.said_aloud), None)
            judged = f"; see whether turn {answer} gives way and answers what they said" if answer is not None else ""
            yield f"in turn {number} the caller interrupted the agent, and the rest of it was never heard{judged}"
