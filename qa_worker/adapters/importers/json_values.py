"""JSON that can be stored: read without crashing, and checked for what PostgreSQL and UTF-8 refuse."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from qa_worker.adapters.importers.problems import WHOLE_RECORD, kind_of, path_text, shown
from qa_worker.domain.errors import InvalidInput

MAX_DEPTH = 64
_MAX_INT = 10**40
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Budget:
    left: int


def check_json(value: object, *, max_values: int = 1_000_000) -> None:
    """Raise InvalidInput, with the path, for the first thing that can't be stored as JSON in PostgreSQL.

    That is: NaN and infinities, whole numbers beyond 40 digits, NUL, lone surrogates, keys that are no text, types that
    JSON doesn't have, nesting deeper than 64, and more than `max_values` values (a YAML alias can stand for millions).
    """
    _check(value, (), _Budget(max_values))


def _check(value: object, path: Path, budget: _Budget) -> None:
    budget.left -= 1
    if budget.left < 0:
        raise _bad(path, "holds too many values", "Make it smaller")
    if len(path) > MAX_DEPTH:
        raise _bad(
            path[:3], f"is nested more than {MAX_DEPTH} levels deep", "Flatten it, or write the inner part as a text"
        )
    if isinstance(value, dict):
        for key, item in value.items():
            _check_key(key, path)
            _check(item, (*path, key), budget)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, (*path, index), budget)
    else:
        _check_scalar(value, path)


def _check_key(key: object, path: Path) -> None:
    if not isinstance(key, str):
        raise _bad(path, f"has {kind_of(key)} as a key", "Keys must be texts; put them in quotes")
    _check_text(key, path)


def _check_scalar(value: object, path: Path) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _bad(path, f"is {value}, which JSON doesn't have", "Leave the field out where there is no number")
    elif isinstance(value, int):
        if not -_MAX_INT < value < _MAX_INT:
            raise _bad(path, "is a whole number of more than 40 digits", "Write it as a text, in quotes")
    elif value is not None:
        raise _bad(path, f"is {kind_of(value)}, which JSON doesn't have", "Write it as a text, in quotes")


def _check_text(text: str, path: Path) -> None:
    found = _UNSTORABLE.search(text)
    if found is None:
        return
    if found.group() == "\x00":
        raise _bad(path, "holds a NUL character (\\u0000), which can't be stored", "Remove it")
    problem = f"holds half a character ({shown(found.group())}), probably cut inside an emoji"
    raise _bad(path, problem, "Cut texts between characters, or replace the half one by \\ufffd")


def _bad(path: Path, problem: str, fix: str) -> InvalidInput:
    return InvalidInput(field=path_text(path), problem=problem, fix=fix)


def not_json(error: ValueError | RecursionError, *, fix: str, line: int | None = None) -> InvalidInput:
    """What to say of an error of the json module."""
    if isinstance(error, json.JSONDecodeError):
        problem = f"is not JSON: {error.msg}, column {error.colno}"
    elif isinstance(error, RecursionError):
        problem, fix = "is nested too deeply", "Flatten it"
    else:
        problem, fix = "holds a number of thousands of digits", "Write such numbers as texts, in quotes"
    return InvalidInput(field=WHOLE_RECORD, problem=problem, fix=fix, line=line)
