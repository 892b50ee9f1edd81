"""What was said in one call, prepared once for all checks that read it."""

from __future__ import annotations

from dataclasses import dataclass

from qa_worker.domain.evidence.sameness import Statement, statement
from qa_worker.domain.folding import words
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role, Transcript


@dataclass(frozen=True, slots=True)
class Said:
    """What one turn says, or a sentence of it: as it stands there, its words, and ready to be compared."""

    turn: int
    role: Role
    text: str
    words: str
    means: Statement


def speech_of(transcript: Transcript) -> tuple[Said, ...]:
    """Each turn that was heard, in order, as far as it was."""
    return tuple(said(number, turn.role, turn.text.removesuffix(CUT_NOTE)) for number, turn in transcript.spoken())


def said(turn: int, role: Role, text: str) -> Said:
    """This text of this turn."""
    folded = words(text)
    return Said(turn, role, text, folded, statement(folded))
