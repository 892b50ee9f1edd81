"""What callers said about themselves: their name, dates, telephone numbers, e-mail addresses.

Only what can be told apart for sure, in English: a name after "my name is" or in answer to the question for it, a date
with its month or a weekday, a number that was called one to phone, an address that is written or spelled with "at" and
"dot". The rest is in the caller's lines anyway. A person reads every draft.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from qa_worker.domain.evidence.spoken import NUMBER_WORDS
from qa_worker.domain.folding import words
from qa_worker.domain.spoken_codes import codes_in
from qa_worker.domain.transcript import Role, Transcript

_NAME = r"[A-Z][a-z'’]{1,32}(?:[- ][A-Z][A-Za-z'’]{1,32}){0,2}"
_NAMED = re.compile(
    rf"(?:\b[Mm]y|\b[Tt]he) (?:(?:full|first|last) )?name(?: is|['’]s) (?P<name>{_NAME})"
    rf"|\b[Uu]nder (?:the name (?:of )?)?(?P<under>{_NAME})"
    rf"|\b[Tt]his is (?P<speaks>{_NAME})(?= (?:speaking|calling|here|from)\b)"
)
_ASKS_NAME = re.compile(
    r"\b(your|what|which|whose) ((full|first|last) )?name\b|\bname please\b|\bwhos (calling|speaking)\b"
)
_NAME_ALONE = re.compile(rf"(?:(?:It['’]s|It is|Yes,|Sure,) )?(?P<name>{_NAME})[.,!]?(?:\s|\Z)")
_NO_NAMES = frozenset(
    (
        *(
            "yes",
            "no",
            "sure",
            "well",
            "why",
            "it",
            "its",
            "the",
            "my",
            "i",
            "im",
            "hi",
            "hello",
            "ok",
            "okay",
            "sorry",
        ),
        *(
            "thanks",
            "thank",
            "please",
            "what",
            "who",
            "certainly",
            "of",
            "oh",
            "um",
            "uh",
            "right",
            "just",
            "one",
            "wait",
        ),
        *("hold", "let", "is", "can", "could", "do", "that", "this", "and", "but", "for", "a", "an"),
    )
)

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NUMBER = f"(?:{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})"
_DAY = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?|{_NUMBER}(?:[- ]{_NUMBER})?)"
_YEAR = rf"(?:,? (?:\d{{4}}|(?:nineteen|twenty) {_NUMBER}(?:[- ]{_NUMBER})?|two thousand(?: and)?(?: {_NUMBER})?))?"
_DATE = re.compile(
    rf"\b(?:{_DAY} (?:of )?{_MONTH}\b{_YEAR}|{_MONTH} (?:the )?{_DAY}\b{_YEAR}|\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}}"
    r"|(?:next |this )?(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)\b",
    re.IGNORECASE,
)
_OF_BIRTH = re.compile(r"\b(birth|born|birthday)\b")

_PHONE = re.compile(
    r"\b(phone|telephone|mobile|cell|cellphone|contact number|number to (call|reach)|call (me|you) (back )?(on|at)"
    r"|reach (me|you))\b"
)
_PHONE_DIGITS = re.compile(r"0\d{7,12}|\d{10,13}")
"""With its area code: shorter ones are customers' and orders' numbers as often."""

_WRITTEN_EMAIL = re.compile(r"(?<![^\s,;:<>()*])[^\s@,;:<>()*]{1,64}@[^\s@,;:<>()]{1,200}\.[a-z]{2,}", re.IGNORECASE)
_SPOKEN_EMAIL = re.compile(
    r"(?<![\w'’])(?P<local>[a-z0-9]{1,32}(?: (?:dot|dash|underscore) [a-z0-9]{1,32}){0,4}) at "
    r"(?P<host>[a-z0-9]{1,32}(?: (?:dot|dash) [a-z0-9]{1,32}){0,4} dot (?:com|net|org|info|eu|uk|de|fr|es|it|nl|io|me|edu|gov|us|ca|au))\b",
    re.IGNORECASE,
)
_SYMBOLS = ((" dot ", "."), (" dash ", "-"), (" underscore ", "_"))
_SPELLS = re.compile(r"(?:^|[\s,])[A-Za-z0-9][,.]?\s*\Z")


def said_facts(transcript: Transcript) -> Iterator[tuple[str, str]]:
    """What the caller said, each with a name for it, in the order in which it was said."""
    question = ""
    for _, turn in transcript.spoken():
        if turn.role is Role.AGENT:
            question = words(turn.text)
            continue
        around = f"{question} {words(turn.text)}"
        yield from (("name", name) for name in _names(turn.text, question))
        of_birth = _OF_BIRTH.search(around) is not None
        yield from (("date of birth" if of_birth else "date", found.group()) for found in _DATE.finditer(turn.text))
        if _PHONE.search(around):
            yield from (("phone", code) for code in codes_in(turn.text) if _PHONE_DIGITS.fullmatch(code))
        yield from (("email", address) for address in _emails(turn.text))
        question = ""


def _names(text: str, question: str) -> Iterator[str]:
    found = [name for match in _NAMED.finditer(text) for name in match.groups() if name]
    alone = _NAME_ALONE.match(text.strip()) if not found and _ASKS_NAME.search(question) else None
    for name in (*found, *([alone["name"]] if alone else ())):
        if _NO_NAMES.isdisjoint(words(name).split()):
            yield name


def _emails(text: str) -> Iterator[str]:
    yield from (address.rstrip(".") for address in _WRITTEN_EMAIL.findall(text))
    for found in _SPOKEN_EMAIL.finditer(text):
        # Of an address that is spelled letter by letter, this would be the last letter only.
        if len(found["local"]) > 1 and not _SPELLS.search(text[: found.start()]):
            address = f"{found['local']}@{found['host']}".lower()
            for word, symbol in _SYMBOLS:
                address = address.replace(word, symbol)
            yield address
