"""Codes as people say them: "B five O, D as in delta, double seven" folded to what a tool's argument would hold.

English only: the words for digits, letters and symbols are the English ones.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice

from qa_worker.domain.folding import as_ascii

_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_ASCII_DIGITS = re.compile(r"([0-9]+)")
_APOSTROPHES = re.compile(r"['’‘]")

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "eleventh": 11,
    "twelfth": 12,
    "twentieth": 20,
    "thirtieth": 30,
    **{f"{teen}th": 13 + i for i, teen in enumerate(_TEENS[3:])},
}
_NUMBERS = {
    **{word: i for i, word in enumerate((*_DIGITS, *_TEENS))},
    **{word: 10 * (i + 2) for i, word in enumerate(_TENS)},
    **_ORDINALS,
    "oh": 0,
    "nought": 0,
    "naught": 0,
    "nil": 0,
    "niner": 9,
}
_UNITS = range(1, 10)
_SCALES = {"hundred": 100, "thousand": 1000}
_TIMES = {"double": 2, "triple": 3}
NUMBER_WORDS = frozenset((*_NUMBERS, *_SCALES, *_TIMES))
"""Lower-case words that stand for a number: "seven", "twelfth", "hundred", "double"."""
_LETTERS = {
    **dict.fromkeys(("alpha", "alfa"), "a"),
    **{word: word[0] for word in ("bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india")},
    **{word: word[0] for word in ("juliet", "juliett", "kilo", "lima", "mike", "november", "oscar", "papa", "quebec")},
    **{word: word[0] for word in ("romeo", "sierra", "tango", "uniform", "victor", "whiskey", "whisky", "yankee")},
    "xray": "x",
    "zulu": "z",
    "zee": "z",
    "zed": "z",
}
# Said between the characters of a code, and no part of it; the names of symbols, because folding drops the symbols too.
_SILENT = frozenset(
    (
        *("and", "then", "the", "letter", "number", "digit", "capital", "uppercase", "lowercase", "uh", "um", "er"),
        *("at", "dot", "point", "period", "dash", "hyphen", "minus", "underscore", "slash", "hash", "pound", "plus"),
        *("space", "comma", "sign"),
    )
)
# Common in English and rare in its neighbours ("in", "was", "a" would not do).
_COMMONEST = frozenset(
    (
        *("the", "to", "and", "that", "have", "i", "it", "for", "not", "with", "you", "this", "but", "from", "they"),
        *(
            "my",
            "all",
            "would",
            "there",
            "their",
            "what",
            "up",
            "out",
            "if",
            "about",
            "who",
            "get",
            "which",
            "go",
            "are",
        ),
        *("your", "can", "please", "yes", "how", "need", "be", "will", "could", "thank", "thanks", "help", "im", "ill"),
    )
)
_TOO_FEW_WORDS = 12
_ENOUGH_WORDS = 300
_COMMON_SHARE = 0.1
_SPELLING_AIDS = (("as", "in"), ("is", "in"), ("like",), ("for",))
_AIDS_BEGIN = frozenset(aid[0] for aid in _SPELLING_AIDS)
# All words that stand for something else. Any other word, if it has two letters or more, stands for itself.
_SPELLED = _SILENT.union(_NUMBERS, _TIMES, _LETTERS)

_ASCII_FOLDED = bytes(ord(chr(code).lower().replace("o", "0")) for code in range(128)).ljust(256)
_ASCII_DROPPED = bytes(code for code in range(128) if not chr(code).isalnum())
_ASCII_SPACED = bytes(code if chr(code).isalnum() else ord(" ") for code in range(128)).ljust(256)


def fold(text: str) -> str:
    """Letters and digits only, lower case; the letter O becomes 0, because spoken they can't be told apart."""
    ascii_text = as_ascii(text)
    if ascii_text is not None:
        return ascii_text.encode().translate(_ASCII_FOLDED, _ASCII_DROPPED).decode()
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, plain)).replace("o", "0")


def fold_spoken(text: str) -> str:
    """Like `fold`, with digits, numbers, letters and symbols that are said as words turned into characters.

    "B five O D Z X" gives `b50dzx`, "one twenty three" `123`, "two thousand twenty six" `2026`, "double seven" `77`,
    "M as in Mike" `m`, "jo dot ray at mail dot com" `j0raymailc0m`. One pass over the text.
    """
    return fold("".join(_characters(_tokens(text))))


def english(texts: Iterable[str]) -> bool:
    """Whether this is English, by the share of its commonest words; a few words alone count as English.

    In running English about a quarter of all words are among them; a tenth leaves room for spelling and names. The
    first `_ENOUGH_WORDS` words tell.
    """
    said = list(islice((token for text in texts for token in _tokens(text)), _ENOUGH_WORDS))
    return len(said) < _TOO_FEW_WORDS or sum(map(_COMMONEST.__contains__, said)) >= _COMMON_SHARE * len(said)


class Heard:
    """Texts in the order in which they were heard, to be asked when a code was heard first."""

    def __init__(self, texts: Iterable[str], *, spoken: bool = True) -> None:
        """`spoken` texts are searched as written and as spelled out; others (results of tools) only as written."""
        self._texts = tuple(texts)
        self._foldings: list[Callable[[str], str]] = [fold_spoken, fold] if spoken else [fold]
        self._streams: list[_Stream] = []

    def first(self, folded_code: str) -> int | None:
        """The number of the text in which the code was complete for the first time; None where it never was."""
        found = (stream.first(folded_code) for stream in self._each_stream())
        return min((number for number in found if number is not None), default=None)

    def by(self, number: int, folded_code: str) -> bool:
        """Whether the code was complete by the end of this text."""
        found = (stream.first(folded_code) for stream in self._each_stream())
        return any(first is not None and first <= number for first in found)

    def _each_stream(self) -> Iterator[_Stream]:
        """The text as written, then as spelled out: each is folded when it is asked for, and once."""
        yield from self._streams
        while self._foldings:
            folding = self._foldings.pop()
            self._streams.append(_Stream([folding(text) for text in self._texts]))
            yield self._streams[-1]


class _Stream:
    """Folded texts end to end, so that a code said over several turns in a row is found by one search."""

    def __init__(self, folded: Sequence[str]) -> None:
        self._whole = "".join(folded)
        self._ends = list(accumulate(map(len, folded)))

    def first(self, code: str) -> int | None:
        start = self._whole.find(code)
        return None if start < 0 else bisect_left(self._ends, start + len(code))


def _tokens(text: str) -> list[str]:
    plain = as_ascii(text)
    if plain is None:
        plain = unicodedata.normalize("NFKC", text).casefold()
        return _TOKEN.findall(_APOSTROPHES.sub("", plain.replace("x-ray", "xray")))
    spaced = plain.lower().replace("x-ray", "xray").encode().translate(_ASCII_SPACED, b"'").decode()
    return " ".join(_ASCII_DIGITS.split(spaced)).split()


def _characters(tokens: Sequence[str]) -> Iterator[str]:
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token not in _SPELLED and len(token) > 1:
            yield token
            place += 1
        elif token in _TIMES and place + 1 < len(tokens):
            yield _several(token, tokens[place + 1])
            place += 2
        elif token in _NUMBERS:
            number, place = _number(tokens, place)
            yield str(number)
        elif token in _SILENT:
            place += 1
        else:
            letter = _LETTERS.get(token, token)
            yield letter
            place = _after_spelling_aid(tokens, place + 1, letter)


def _several(how_often: str, word: str) -> str:
    if (how_often, word) == ("double", "u"):
        return "w"
    value = str(_NUMBERS[word]) if word in _NUMBERS else _LETTERS.get(word, word)
    return value * _TIMES[how_often] if len(value) == 1 else how_often + value


def _number(tokens: Sequence[str], place: int) -> tuple[int, int]:
    """One number as English builds it, from `place`; "one twenty" are two numbers, "one hundred twenty" is one."""
    value, place = _below_hundred(tokens, place)
    for scale in ("hundred", "thousand"):
        if value and place < len(tokens) and tokens[place] == scale:
            rest, place = _rest(tokens, place + 1, scale)
            value = value * _SCALES[scale] + rest
    return value, place


def _rest(tokens: Sequence[str], place: int, scale: str) -> tuple[int, int]:
    start = place + 1 if place < len(tokens) and tokens[place] == "and" else place
    if start >= len(tokens) or not _NUMBERS.get(tokens[start]):
        return 0, place
    if scale == "thousand":
        return _number(tokens, start)
    return _below_hundred(tokens, start)


def _below_hundred(tokens: Sequence[str], place: int) -> tuple[int, int]:
    value = _NUMBERS[tokens[place]]
    unit = _NUMBERS.get(tokens[place + 1], 0) if place + 1 < len(tokens) else 0
    if tokens[place] in _TENS and unit in _UNITS:
        return value + unit, place + 2
    return value, place + 1


def _after_spelling_aid(tokens: Sequence[str], place: int, letter: str) -> int:
    """Where to go on after "as in Mike", which only repeats the letter before it."""
    if len(letter) > 1 or place == len(tokens) or tokens[place] not in _AIDS_BEGIN:
        return place
    for aid in _SPELLING_AIDS:
        word = place + len(aid)
        if tuple(tokens[place:word]) == aid and word < len(tokens) and tokens[word].startswith(letter):
            return word + 1
    return place
