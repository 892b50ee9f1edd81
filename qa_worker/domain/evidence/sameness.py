"""Whether two things that were said are, nearly, the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

from qa_worker.domain.evidence.spoken import NUMBER_WORDS

NEARLY = 0.8
"""Share of words in common (Jaccard) from which two statements count as one. Our own: one word in nine may differ."""

_ONE_LETTER_WORDS = frozenset("ai")
_SPELLED_FIGURES = NUMBER_WORDS.union(ascii_lowercase) - _ONE_LETTER_WORDS


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
        mine, theirs = len(self.said), len(other.said)
        if min(mine, theirs) < NEARLY * max(mine, theirs):
            return False
        shared = len(self.said & other.said)
        return shared >= NEARLY * (mine + theirs - shared)


def statement(folded: str) -> Statement:
    """What folded words say, as a bag of words."""
    said = folded.split()
    bag = frozenset(said)
    return Statement(bag, _figures(bag, ascii_only=folded.isascii()), len(said))


def _figures(bag: frozenset[str], *, ascii_only: bool) -> frozenset[str]:
    """The words that are figures. In ASCII a word that isn't all letters holds a digit."""
    if ascii_only:
        return (bag & _SPELLED_FIGURES).union(word for word in bag if not word.isalpha())
    return frozenset(word for word in bag if word in _SPELLED_FIGURES or _is_letter_or_code(word))


def _is_letter_or_code(word: str) -> bool:
    spelled = len(word) == 1 and word not in _ONE_LETTER_WORDS
    return spelled or any(map(str.isdigit, word))
