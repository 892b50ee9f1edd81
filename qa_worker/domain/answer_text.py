"""Finding JSON objects in a text that a model wrote. Nothing is repaired: what is cut or doubtful is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from qa_worker.domain.errors import QaError

MAX_CHARS = 400_000
"""Longer texts are refused unread: 128,000 output tokens, the models' limit, are about 320,000 characters."""


class Reason(StrEnum):
    """Why an answer could not be used."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    NO_JSON = "no_json"
    CUT = "cut"
    DUPLICATE_KEY = "duplicate_key"
    CONFLICTING = "conflicting"
    MISSING = "missing"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_VALUE = "unknown_value"


@dataclass
class Unreadable(QaError):
    """The answer could not be used. `where` is a path such as `findings[0].severity`; nothing of the answer is in it."""

    reason: Reason
    where: str = ""

    def __str__(self) -> str:
        return f"the answer could not be used: {self.reason.value}{f' at {self.where}' if self.where else ''}"


_TOKEN = re.compile(r'\\.|["{}]', re.DOTALL)


def objects(text: str, *, holding: str) -> list[dict[str, Any]]:
    """The JSON objects of a text that have the key `holding`; never an empty list.

    A text that is JSON as a whole is taken as it is. Otherwise every fenced block and then the rest is searched for
    outermost balanced objects: an object within one that is cut or broken is never looked at.
    Raises: Unreadable.
    """
    bare = text.strip()
    if not bare:
        raise Unreadable(Reason.EMPTY)
    if len(bare) > MAX_CHARS:
        raise Unreadable(Reason.TOO_LONG)
    whole = _parse(bare)
    if isinstance(whole, dict):
        return [whole]
    if whole is not None:
        raise Unreadable(Reason.WRONG_TYPE)
    return _search(bare, holding=holding)


def _search(text: str, *, holding: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cut = False
    for part in _parts(text):
        spans, open_end = _balanced(part)
        cut = cut or open_end
        found.extend(_answers(spans, holding=holding))
    if not found:
        raise Unreadable(Reason.CUT if cut else Reason.NO_JSON)
    return found


def _parts(text: str) -> list[str]:
    """The bodies of the fenced blocks, and last everything else; a fence that is never closed is no fence."""
    fenced: list[str] = []
    rest: list[str] = []
    opened: int | None = None
    for line in text.split("\n"):
        rest.append(line)
        mark = line.strip()
        if opened is None and mark.startswith("```") and "`" not in mark[3:]:
            opened = len(rest)
        elif opened is not None and mark == "```":
            fenced.append("\n".join(rest[opened:-1]))
            del rest[opened - 1 :]
            opened = None
    return [*fenced, "\n".join(rest)]


def _answers(spans: Iterable[str], *, holding: str) -> list[dict[str, Any]]:
    values = (_parse(span) for span in spans)
    return [value for value in values if isinstance(value, dict) and holding in value]


def _balanced(text: str) -> tuple[list[str], bool]:
    """Outermost `{...}` spans, braces within strings not counted, and whether the last one has no end."""
    spans: list[str] = []
    depth = start = 0
    in_string = False
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark == '"' and depth:
            in_string = not in_string
        elif in_string or len(mark) > 1:
            continue
        elif mark == "{":
            start = start if depth else token.start()
            depth += 1
        elif mark == "}" and depth:
            depth -= 1
            if not depth:
                spans.append(text[start : token.end()])
    return spans, depth > 0


def _parse(text: str) -> Any:
    """The JSON value of a text; None where it has none (or is `null`, or nested beyond all reason)."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Unreadable(Reason.DUPLICATE_KEY)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)
