"""Whether two things that were said are, nearly, the same thing."""

from __future__ import annotations

from dataclasses import dataclass

from qa_worker.domain.evidence.spoken import is_number
from qa_worker.domain.folding import words

NEARLY = 0.8
"""Share of words in common (Jaccard) from which two statements count as one. Our own: one word in nine may differ."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Something said, ready to be compared. `figures` are its numbers and codes: other figures, another statement."""

    said: frozenset[str]
    figures: frozenset[str]
    length: int

    def nearly(self, other: Statement) -> bool:
        """True for the same figures and nearly the same words."""
        if self.figures != other.figures:
            return False
        return len(self.said & other.said) >= NEARLY * len(self.said | other.said)


def statement(text: str) -> Statement:
    """What a text says, as a bag of words."""
    said = words(text).split()
    return Statement(frozenset(said), frozenset(filter(_is_figure, said)), len(said))


def _is_figure(word: str) -> bool:
    spelled = len(word) == 1 and word not in {"a", "i"}
    return spelled or is_number(word) or any(map(str.isdigit, word))
