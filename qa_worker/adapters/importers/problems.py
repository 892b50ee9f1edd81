"""What is wrong with a record, in words that say which field to mend and how."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from qa_worker.domain.errors import InvalidInput

WHOLE_FILE = "(file)"
WHOLE_RECORD = "(record)"

_SAID = "said"
_SHOWN_CHARS = 60
_KINDS: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_WANTED: Mapping[str, str] = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
}


def kind_of(value: object) -> str:
    """What people call a JSON value of this type."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """A value as it may be shown in a message: short, one line, and encodable whatever is in it."""
    if isinstance(value, str):
        text = json.dumps(value[: _SHOWN_CHARS + 1], ensure_ascii=False)
    elif isinstance(value, bool | int | float):
        text = _number(value)
    else:
        return kind_of(value)
    safe = text.encode("utf-8", "backslashreplace").decode()
    return safe if len(safe) <= _SHOWN_CHARS else safe[: _SHOWN_CHARS - 3] + "..."


def _number(value: float) -> str:
    # Turning a huge int into text is itself an error (4,300 digits), so it is named instead.
    return "a huge number" if isinstance(value, int) and value.bit_length() > 256 else json.dumps(value)  # noqa: PLR2004 - 77 digits, longer than any message


def path_text(parts: Iterable[str | int]) -> str:
    """`("turns", 3, "role")` as `turns[3].role`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif (part.isidentifier() or part.isdecimal()) and len(part) <= _SHOWN_CHARS:
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text or WHOLE_RECORD


def refuse(problem: str, fix: str, *, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """The error that a validator raises when it knows better words than pydantic. `at` is a path below its own."""
    return PydanticCustomError(_SAID, "{problem}", {"problem": problem, "fix": fix, "at": at})


def from_validation(error: ValidationError, *, fixes: Mapping[str, str]) -> InvalidInput:
    """The first problem that pydantic found. `fixes` says, by field name, what belongs there."""
    first, *more = all_from_validation(error, fixes=fixes)
    if more:
        first.problem += f" (first of {len(more) + 1} problems)"
    return first


def all_from_validation(error: ValidationError, *, fixes: Mapping[str, str]) -> list[InvalidInput]:
    """Every problem that pydantic found; at least one."""
    return [_problem(detail, fixes) for detail in error.errors(include_url=False)]


def _problem(detail: ErrorDetails, fixes: Mapping[str, str]) -> InvalidInput:
    where = (*detail["loc"], *detail.get("ctx", {}).get("at", ()))
    problem, fix = _words(detail)
    # The nearest field that has an advice of its own: for `levels.3` that is `levels`.
    advice = (fixes[part] for part in reversed(where) if isinstance(part, str) and part in fixes)
    return InvalidInput(field=path_text(where), problem=problem, fix=fix or next(advice, "Correct it"))


def _words(detail: ErrorDetails) -> tuple[str, str]:
    kind, value = detail["type"], detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == _SAID:
        return str(context["problem"]), str(context["fix"])
    if kind == "missing":
        return "is missing", ""
    if kind == "extra_forbidden":
        return "is not a field", "Remove it, or correct its name"
    if kind == "literal_error":
        return f"is {shown(value)}, which is not one of the choices", ""
    if kind in _WANTED:
        return f"is {_described(value)}, and must be {_WANTED[kind]}", ""
    return f"is {_described(value)}: {detail['msg'][:1].lower()}{detail['msg'][1:]}", ""


def _described(value: object) -> str:
    return shown(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else kind_of(value)
