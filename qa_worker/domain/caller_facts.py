"""Names, days, dates and short codes in what a caller says of itself, and whether its brief holds them.

They are said in many ways, so only plain statements are looked at, and each kind only where the brief has something of it:
a caller whose brief names no day may choose one. What the agent said before is known as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qa_worker.domain.evidence.excerpts import sentences
from qa_worker.domain.folding import words
from qa_worker.domain.scenario import Scenario, known_to_caller
from qa_worker.domain.spoken_codes import Known, codes_in

_FEWEST_LETTERS = 3
_WORDS = r"((?:[^\W\d_][\w'’-]*[ ,]*){1,4})"
_INTRODUCES = re.compile(
    rf"\b(?:my (?:full |last |first |sur)?name(?:['’]?s| is)|(?:the )?name(?:['’]s| is)|under(?: the name(?: of)?)?) +{_WORDS}",
    re.IGNORECASE,
)
_PRESENTS = re.compile(rf"\b(?:i['’]m|i am|this is) +{_WORDS}", re.IGNORECASE)
_IS_CALLED = re.compile(rf"\b(?:named|called|under the name(?: of)?|name is|you are) +{_WORDS}", re.IGNORECASE)
_ANSWERS = re.compile(rf"(?:(?:yes|sure)[ ,.]+)?(it['’]s +|that['’]s +)?{_WORDS}", re.IGNORECASE)
_ASKED_NAME = re.compile(r"\b(your|which|what|full|last|first|the) (full |last |first )?(name|surname)\b")
_NO_NAMES = frozenset(
    (
        *(
            "mr",
            "mrs",
            "ms",
            "miss",
            "dr",
            "doctor",
            "sir",
            "madam",
            "professor",
            "sister",
            "i",
            "im",
            "its",
            "a",
            "the",
        ),
        *("yes", "no", "sure", "ok", "okay", "well", "hello", "hi", "sorry", "thanks", "thank", "please", "one", "my"),
        *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    )
)
_NAME_AND_AGE = re.compile(rf"{_WORDS}(?=\d)")

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_OFFERS_ANOTHER = re.compile(
    r"\b(other|another|different|else|instead|alternatives?|unfortunately|sorry|afraid|full|closed|(not|nothing|un) ?available)\b"
)
_ASKED_DAY = re.compile(r"\b((which|what) (day|date)|when)\b")
_WISHED_DAY = re.compile(rf"\b(?:on|for|this|next|coming) ({'|'.join(_WEEKDAYS)})\b")
_ANY_DAY = re.compile(rf"\b({'|'.join(_WEEKDAYS)})s?\b")
_TELLS = re.compile(r"\b(last|was|were|had|did|ago|since|called|came|went|except|not|closed|busy|cant|dont|wont)\b")

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *(("january", "jan"), ("february", "feb"), ("march", "mar"), ("april", "apr"), ("may",), ("june", "jun")),
            *(("july", "jul"), ("august", "aug"), ("september", "sep", "sept"), ("october", "oct")),
            *(("november", "nov"), ("december", "dec")),
        ),
        start=1,
    )
    for name in names
}
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
    "twentieth",
)
_DAYS = {
    **{word: number for number, word in enumerate(_ORDINALS, start=1)},
    **{f"twenty {word}": 20 + number for number, word in enumerate(_ORDINALS[:9], start=1)},
    "thirtieth": 30,
    "thirty first": 31,
}
_DAY = rf"(\d{{1,2}}(?:st|nd|rd|th)?|{'|'.join(sorted(_DAYS, key=len, reverse=True))})"
_MONTH = rf"({'|'.join(_MONTHS)})"
_DAY_MONTH = re.compile(rf"\b{_DAY} (of )?{_MONTH}\b")
_MONTH_DAY = re.compile(rf"\b{_MONTH} (?:the )?{_DAY}\b")
_ISO = re.compile(r"\b\d{4}-(\d{1,2})-(\d{1,2})\b")
_WITH_SLASHES = re.compile(r"\b(\d{1,2})[/.](\d{1,2})(?:[/.]\d{2,4})\b")

_SHORT_CODE = 4
_CALLED_CODE = re.compile(
    r"\b(?:pin|pass ?code|pass ?word|reference|code|last four(?: digits)?|(?:booking|order|member|customer|policy|account) (?:number|id))"
    r"(?: number| code)?(?: is|['’]s|:|,| are)? (?!(?:for|at|on|in|from|about|to|and|but|or|when|that|which|please)\b)(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_ASKED_CODE = re.compile(r"\b(pin|pass ?code|pass ?word|reference|code|last four)\b")
_REST_WORDS = 6
_YEARS_OR_TIMES = range(1900, 2101)


@dataclass(frozen=True, slots=True)
class Before:
    """What came before a line of the caller: the agent's last turn, and all that it said so far."""

    asked: str
    agent: Sequence[str]


def invented(text: str, before: Before, scenario: Scenario) -> Iterator[str]:
    """What kinds of things the caller gives in this line that it can't know, in words that hold none of them."""
    brief = (*known_to_caller(scenario), *scenario.facts)
    known = (*brief, *before.agent)
    if has_name(scenario) and any(_unknown_name(name, known) for name in names_given(text, before.asked)):
        yield "the caller gives a name that is not in its brief"
    # Who is told that the wanted day can't be had has to choose another one.
    chooses = _OFFERS_ANOTHER.search(words(before.asked)) is not None
    if not chooses and _days_in(brief) and _wished_days(text, before.asked) - _days_in(known):
        yield "the caller asks for a day that is not in its brief"
    dates = dates_in(brief)
    if not chooses and dates and dates_in((text,)) - dates - dates_in(before.agent):
        yield "the caller gives a date that is not in its brief"
    codes = Known(known)
    if any(code not in codes for code in _short_codes(text, before.asked)):
        yield f"the caller gives a code of {_SHORT_CODE} characters that is not in its brief"


def names_given(text: str, asked: str) -> Iterator[tuple[str, ...]]:
    """Names by which a caller introduces itself in answer to what was `asked`, each in folded words."""
    for found in _INTRODUCES.finditer(text):
        yield from _named(found[1], fewest=1)
    for found in _PRESENTS.finditer(text):
        yield from _named(found[1], fewest=2)
    answer = _ANSWERS.match(text.strip()) if _ASKED_NAME.search(words(asked)) else None
    if answer:
        certain = answer[1] or answer[2].casefold().endswith("please")
        yield from _named(answer[2], fewest=1 if certain else 2)


def has_name(scenario: Scenario) -> bool:
    """Whether the brief says what the caller is called."""
    if any("name" in words(key.replace("_", " ")).split() for key in scenario.facts):
        return True
    persona = scenario.persona.strip()
    brief = " ".join((persona, scenario.goal, *scenario.facts.values()))
    with_age = _NAME_AND_AGE.match(persona)
    phrases = [found[1] for found in _IS_CALLED.finditer(brief)] + ([with_age[1]] if with_age else [])
    return any(any(_named(phrase, fewest=1)) for phrase in phrases) or any(_named(persona, fewest=2))


def _named(phrase: str, *, fewest: int) -> Iterator[tuple[str, ...]]:
    """The capitalised words at the beginning of a phrase, where there are enough of them."""
    capital: list[str] = []
    for token in phrase.replace(",", " , ").split():
        if not token[0].isupper():
            break
        capital += [word for word in words(token).split() if word not in _NO_NAMES]
    if len(capital) >= fewest:
        yield tuple(capital)


def _unknown_name(name: Sequence[str], known: Iterable[str]) -> bool:
    """Whether no part of it is known: people leave out first names, and shorten them."""
    every = words(" ".join(known)).split()
    return not any(_alike(part, word) for part in name for word in every)


def _alike(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return one == other or (len(shorter) >= _FEWEST_LETTERS and longer.startswith(shorter))


def _wished_days(text: str, asked: str) -> set[str]:
    """The weekdays that are asked for; none in a sentence that may tell of something else."""
    day = _ANY_DAY if _ASKED_DAY.search(words(asked)) else _WISHED_DAY
    wishes = (words(sentence) for sentence in sentences(text))
    return {found for wish in wishes if not _TELLS.search(wish) for found in day.findall(wish)}


def _days_in(texts: Iterable[str]) -> set[str]:
    return set(_ANY_DAY.findall(words(" ".join(texts))))


def dates_in(texts: Iterable[str]) -> set[tuple[int, int]]:
    """The days of the year in these texts, as (month, day); of what can be read in two ways, both."""
    text = " ".join(texts)
    folded = words(text)
    found = {(_MONTHS[month], _day(day)) for month, day in _MONTH_DAY.findall(folded)}
    for day, of, month in _DAY_MONTH.findall(folded):
        # "A table for 2, may I ask" holds no date.
        if month != "may" or of or not day.isdecimal():
            found.add((_MONTHS[month], _day(day)))
    found |= {(int(month), int(day)) for month, day in _ISO.findall(text)}
    for one, other in _WITH_SLASHES.findall(text):
        found |= {(int(one), int(other)), (int(other), int(one))}
    return {(month, day) for month, day in found if month in range(1, 13) and day in range(1, 32)}


def _day(word: str) -> int:
    return _DAYS[word] if word in _DAYS else int(re.sub(r"\D", "", word))


def _short_codes(text: str, asked: str) -> Iterator[str]:
    """Codes of four characters that the caller calls one, or gives when it is asked for one."""
    called = _CALLED_CODE.search(text)
    if called:
        yield from _codes_of_four(" ".join(called["rest"].split()[:_REST_WORDS]))
    elif _ASKED_CODE.search(words(asked)) and "?" in asked:
        yield from (code for code in _codes_of_four(text) if not (code.isdecimal() and int(code) in _YEARS_OR_TIMES))


def _codes_of_four(text: str) -> Iterator[str]:
    return (code for code in codes_in(text, shortest=_SHORT_CODE) if len(code) == _SHORT_CODE)
