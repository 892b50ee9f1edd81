"""Text reduced to what was said: for comparing phrases and quotes that differ in case, punctuation or spacing only."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = re.compile(r"(?<=\w)['’‘ʼ`´](?=\w)")
_ASCII_APOSTROPHE = re.compile(r"'(?<=\w')(?=\w)", re.ASCII)  # opens with a literal, which `re` finds at once
_NOT_A_WORD = re.compile(r"[\W_]+")

# No mark that stands for a hyphen becomes one: what is spelled with it would read differently ("x-ray").
_TYPOGRAPHIC = (("’", "'"), ("‘", "'"), *((mark, " ") for mark in "“”—–‑−…•→≤"))
_ASCII_WORDS = bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(128)).ljust(256)


def as_ascii(text: str) -> str | None:
    """The text in ASCII, where typographic punctuation is all that keeps it from that; else None.

    Folding gives the same for both, and ASCII needs no Unicode tables: that is several times faster.
    """
    if not text.isascii():
        for mark, plain in _TYPOGRAPHIC:
            text = text.replace(mark, plain)
    return text if text.isascii() else None


def words(text: str) -> str:
    """The words of a text, lower case, one blank between them: `"I’m  sorry—no."` gives `im sorry no`.

    Apostrophes inside a word vanish and all other punctuation (underscores too) parts words, so that JSON folds to the
    same words however it was written.
    """
    plain = as_ascii(text)
    if plain is None:
        return _NOT_A_WORD.sub(" ", _APOSTROPHES.sub("", _normal(text))).strip()
    if "'" in plain or "`" in plain:
        plain = _ASCII_APOSTROPHE.sub("", plain.replace("`", "'"))
    return " ".join(plain.encode().translate(_ASCII_WORDS).decode().split())


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def contains(folded_text: str, folded_phrase: str) -> bool:
    """Whether a folded phrase occurs in a folded text as whole words; an empty phrase occurs nowhere."""
    return bool(folded_phrase) and f" {folded_phrase} " in f" {folded_text} "


def rough(text: str) -> str:
    """The text with every word of `words(text)` somewhere in it, but for apostrophes: enough to rule a word out, fast."""
    plain = as_ascii(text)
    return without_apostrophes(_normal(text) if plain is None else plain.lower())


def without_apostrophes(folded: str) -> str:
    """The same without a single apostrophe."""
    for mark in "'`" if folded.isascii() else "'’‘ʼ`´":
        folded = folded.replace(mark, "")
    return folded
