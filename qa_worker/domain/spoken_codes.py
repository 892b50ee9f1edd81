"""Numbers and codes in what a caller says, and whether the caller could know them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from qa_worker.domain.evidence.spoken import NUMBER_WORDS, fold, fold_spoken

_SHORTEST = 5
"""Four digits may be a year, a time, an amount or a room; five and more are somebody's number."""
_SHORTEST_PIECE = 3
_FEWEST_DIGITS = 2
_TOKEN = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_WRITTEN_CODE = re.compile(r"(?=(?:\D*\d){2})[^\W_]+(?:-[^\W_]+)*")
_EMAIL = re.compile(r"[^\s@,;<>()*]+@[^\s@,;<>()]+\.[a-z]{2,}", re.IGNORECASE)
_AMOUNT = re.compile(r"[$€£¥]\s?\d[\d.,]*|\b\d+[.,]\d{1,2}\b(?!\d)|\b\d+\s?[%€£]")
# "May 4, 1982": day and year are no number of five digits.
_MONTH_DAY_YEAR = re.compile(
    r"\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.? \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d\d\b",
    re.IGNORECASE,
)
_WITH_UNIT = re.compile(r"\d{1,3}-?[a-z]+")
# Commas and full stops stand between the groups of one number; these stand between two things.
_PARTS = re.compile(r"[()\[\];:\n=>→]|\s[-–—]\s|[–—]")
_SPELLS_ON = frozenset(("dash", "hyphen", "slash", "dot", "point", "letter", "number", "capital", "then", "and"))
_OF_AMOUNTS = frozenset(("hundred", "thousand"))
# "The twelfth", "one second": dates and manners of speaking, never a code.
_ORDINALS = frozenset(("first", "second", "third", *(word for word in NUMBER_WORDS if word.endswith("th"))))
_NO_DIGITS = frozenset(("double", "triple"))
_ARTICLES = ("a", "i")
_DAYS, _MONTHS = range(1, 32), range(1, 13)
_YEARS = range(1900, 2101)


def codes_in(text: str, *, shortest: int = _SHORTEST) -> Iterator[str]:
    """The numbers and codes of `shortest` or more characters that are said, folded; spelled and written ones alike.

    Dates and amounts are left out: they are said in too many ways to be looked up. So are letters that spell a word.
    """
    for email in _EMAIL.findall(text):
        yield fold(email.rstrip("."))
    for part in _PARTS.split(_AMOUNT.sub(";", _MONTH_DAY_YEAR.sub(";", _EMAIL.sub(";", text)))):
        for run in _runs(part):
            code = fold_spoken(" ".join(run))
            if len(code) >= shortest and _digits(run) >= _FEWEST_DIGITS and not _may_be_date(code):
                yield code


def _runs(text: str) -> Iterator[list[str]]:
    """Stretches of digits, number words, single letters and short codes, as they are said one after the other."""
    run: list[str] = []
    silent: list[str] = []
    for token in (*_TOKEN.findall(text.casefold()), "."):
        whole = _is_whole(token)
        if not whole and _spells(token):
            run += [*silent, token] if run else [token]
            silent = []
        elif run and token in _SPELLS_ON:
            silent.append(token)
        else:
            yield from (found for found in (_without_articles(run), [token] if whole else []) if found)
            run, silent = [], []


def _without_articles(run: list[str]) -> list[str]:
    """The run without "a" and "I" at its ends, which are words there; empty for an amount."""
    start, end = 0, len(run)
    while start < end and run[start] in _ARTICLES:
        start += 1
    while start < end and run[end - 1] in _ARTICLES:
        end -= 1
    return run[start:end] if _OF_AMOUNTS.isdisjoint(run) else []


def _is_whole(token: str) -> bool:
    """A code in one piece; a number beside it ("20447138 first") is no part of it."""
    return len(token) >= _SHORTEST and sum(map(str.isdecimal, token)) >= _SHORTEST - 1


def _spells(token: str) -> bool:
    parts = token.split("-")
    if not _ORDINALS.isdisjoint(parts):
        return False
    if all(part in NUMBER_WORDS or part.isdecimal() or (len(part) == 1 and part.isalpha()) for part in parts):
        return True
    return _WRITTEN_CODE.fullmatch(token) is not None and _WITH_UNIT.fullmatch(token) is None


def _digits(run: Iterable[str]) -> int:
    """How many digits were said, at least; the letter O folds to one and is none."""
    pieces = (piece for token in run for piece in token.split("-"))
    return sum(
        1 if piece in NUMBER_WORDS and piece not in _NO_DIGITS else sum(map(str.isdecimal, piece)) for piece in pieces
    )


def _may_be_date(code: str) -> bool:
    if not code.isdecimal():
        return False
    if len(code) == 8:  # noqa: PLR2004 - day, month and year
        splits = ((code[:2], code[2:4], code[4:]), (code[6:], code[4:6], code[:4]))
        return any(int(year) in _YEARS and _day_and_month(day, month) for day, month, year in splits)
    return len(code) == 6 and (_day_and_month(code[:2], code[2:4]) or _day_and_month(code[4:], code[2:4]))  # noqa: PLR2004


def _day_and_month(first: str, second: str) -> bool:
    one, other = int(first), int(second)
    return (one in _DAYS and other in _MONTHS) or (one in _MONTHS and other in _DAYS)


class Known:
    """What somebody could know, to be asked about codes."""

    def __init__(self, texts: Iterable[str]) -> None:
        """`texts` are taken as written and as spelled aloud."""
        self._texts = tuple(form for text in texts for form in {fold(text), fold_spoken(text)} if form)

    def __contains__(self, code: str) -> bool:
        """Whether a folded code is known, whole or put together of known pieces: people say numbers in groups, or twice."""
        return self._pieced(code)

    def _pieced(self, code: str) -> bool:
        reached = {0}
        for end in range(_SHORTEST_PIECE, len(code) + 1):
            if any(start in reached and self._holds(code[start:end]) for start in range(end - _SHORTEST_PIECE + 1)):
                reached.add(end)
        return len(code) in reached

    def _holds(self, piece: str) -> bool:
        return any(piece in text for text in self._texts)
