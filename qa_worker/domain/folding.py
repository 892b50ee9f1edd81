"""Text reduced to what was said: for comparing phrases and quotes that differ in case, punctuation or spacing only."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = re.compile(r"(?<=\w)['’‘ʼ`´](?=\w)")
_NOT_A_WORD = re.compile(r"[\W_]+")


def words(text: str) -> str:
    """The words of a text, lower case, one blank between them: `"I’m  sorry—no."` gives `im sorry no`.

    Apostrophes inside a word vanish and all other punctuation (underscores too) parts words, so that JSON folds to the
    same words however it was written.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_A_WORD.sub(" ", _APOSTROPHES.sub("", plain)).strip()


def contains(folded_text: str, folded_phrase: str) -> bool:
    """Whether a folded phrase occurs in a folded text as whole words; an empty phrase occurs nowhere."""
    return bool(folded_phrase) and f" {folded_phrase} " in f" {folded_text} "
