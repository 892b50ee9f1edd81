"""Identifiers in tool arguments that came from nowhere: nobody said them and no tool returned them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qa_worker.domain.call import Agent
from qa_worker.domain.evidence.excerpts import of_call
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.spoken import Heard, fold, fold_spoken
from qa_worker.domain.transcript import Role, ToolCall, Transcript, canonical

_WORD_OF_KEY = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_KEYS = frozenset(
    (
        *("id", "ids", "uuid", "guid", "code", "codes", "number", "numbers", "no", "ref", "reference", "references"),
        *("account", "phone", "mobile", "telephone", "email", "zip", "zipcode", "postcode", "iban", "vin", "serial"),
        *("ssn", "pin", "plate", "confirmation", "booking", "reservation", "tracking"),
    )
)
# `reason_code`, `ticket_type_id`: one of a few words, not one of many things.
_KEYS_OF_KINDS = frozenset(
    ("reason", "status", "type", "kind", "category", "class", "country", "currency", "language", "locale", "error")
)
_PLACEHOLDERS = frozenset(
    (
        *("unknown", "missing", "placeholder", "tbd", "todo", "dummy", "example", "sample", "test", "notprovided"),
        *("notavailable", "xxxxxx", "abc123", "string"),
    )
)

# Dates, times and amounts are said in too many ways ("tomorrow", "half past two", "about eighty") to be looked up.
_DATE_OR_TIME = re.compile(
    r"\d{4}-\d{1,2}(-\d{1,2})?([T ]\d{1,2}:\d{2}.*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}"
    r"|\d{1,2}[- ]?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[- ]?(\d{2,4})?"
    r"|\d{1,2}:\d{2}(:\d{2})?|\d{1,2}(:\d{2}){0,2} ?[ap]\.?m\.?",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"[$€£¥]\s?[\d.,]+|[\d.,]+\s?(%|[$€£¥])|\d+\.\d{1,2}")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[a-z]{2,}", re.IGNORECASE)
_CODE = re.compile(r"(?=.*\d)(?=.*[A-Z])[A-Z0-9#/_.+-]{4,}")
_CAPITALS = re.compile(r"[A-Z]{5,}")
_SHORTEST = 4
_DEEPEST = 32
_PHONE_TAIL = 9


def unsaid(transcript: Transcript, agent: Agent) -> tuple[tuple[Fact, ...], bool]:
    """The facts, and whether there was any identifier to look up.

    An identifier counts as known when it occurs before the call, as written or as spelled aloud, in what caller or agent
    said, in a tool's result, in the agent's instructions or its tools' descriptions. Each is reported once: afterwards
    it has been said.
    """
    search = _Search(transcript, agent)
    facts: dict[str, Fact] = {}
    looked_up = False
    known: set[str] = set()
    for number, turn in enumerate(transcript.turns):
        for call in turn.tool_calls:
            for path, value in identifiers(call):
                looked_up = True
                if value in facts or value in known:
                    continue
                if search.known(value, before=number):
                    known.add(value)
                else:
                    facts[value] = _fact(number, call, path, value)
    return tuple(facts.values()), looked_up


def _fact(number: int, call: ToolCall, path: str, value: str) -> Fact:
    detail = f"{path} is {value!r}, which nobody said and no tool returned before this call"
    return Fact(Check.UNSAID_IDENTIFIER, detail, turn=number, quote=of_call(call), subject=call.name)


def identifiers(call: ToolCall) -> Iterator[tuple[str, str]]:
    """The values among a call's arguments that look like identifiers, each with the name of its argument."""
    return (
        (path, text)
        for path, value in _scalars(call.arguments)
        if _is_identifier(path, text := str(value).strip(), number=isinstance(value, int))
    )


def _scalars(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str | int]]:
    if isinstance(value, str):
        yield path, value
    elif depth < _DEEPEST and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _scalars(inner, str(key), depth + 1)
    elif depth < _DEEPEST and isinstance(value, list | tuple):
        for inner in value:
            yield from _scalars(inner, path, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, value


def _is_identifier(key: str, text: str, *, number: bool) -> bool:
    named = _names_identifier(key)
    email = "@" in text and _EMAIL.fullmatch(text) is not None
    if not named and (number or not (email or _CODE.fullmatch(text))):
        return False
    if _DATE_OR_TIME.fullmatch(text) or _AMOUNT.fullmatch(text):
        return False
    folded = fold(text)
    if named and folded in _PLACEHOLDERS_FOLDED:
        return True
    if len(folded) < _SHORTEST:
        return False
    if email or not named:
        return True
    return _CAPITALS.fullmatch(text) is not None or (any(map(str.isdigit, text)) and _one_word(text))


def _names_identifier(key: str) -> bool:
    parts = set(map(str.casefold, _WORD_OF_KEY.findall(key)))
    return not parts.isdisjoint(_KEYS) and parts.isdisjoint(_KEYS_OF_KINDS)


def _one_word(text: str) -> bool:
    """True without blanks, and for digits in groups ("407 555 0138")."""
    return not any(map(str.isspace, text)) or not any(map(str.isalpha, text))


_PLACEHOLDERS_FOLDED = frozenset(map(fold, _PLACEHOLDERS))


class _Search:
    """What was known at each turn of one call. Sources are folded when they are needed, the longest last."""

    def __init__(self, transcript: Transcript, agent: Agent) -> None:
        self._speech = Heard(t.text if t.role is not Role.TOOL else "" for t in transcript.turns)
        self._results = Heard((t.text if t.role is Role.TOOL else "" for t in transcript.turns), spoken=False)
        self._agent = agent
        self._folded_agent: str | None = None

    def known(self, value: str, *, before: int) -> bool:
        forms = _forms(value)
        # Text of the turn that makes the call is spoken before the call.
        return (
            any(self._results.by(before - 1, form) for form in forms)
            or any(self._speech.by(before, form) for form in forms)
            or any(form in self._given() for form in forms)
        )

    def _given(self) -> str:
        if self._folded_agent is None:
            tools = (part for tool in self._agent.tools for part in (tool.description, canonical(tool.parameters)))
            self._folded_agent = fold(" ".join((self._agent.instructions, *tools)))
        return self._folded_agent


def _forms(value: str) -> Sequence[str]:
    """The ways in which a value may have been heard: whole, read out as words, a phone number without its country."""
    forms = [fold(value), fold_spoken(value)]
    digits = forms[0]
    if digits.isdigit() and len(digits) > _PHONE_TAIL:
        forms.append(digits[-_PHONE_TAIL:])
    return tuple(dict.fromkeys(form for form in forms if form))
