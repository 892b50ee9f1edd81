"""Frozen dataclasses as JSON and back, by their annotations: for versions of scenarios and agents, read only whole."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def to_plain(value: Any) -> dict[str, Any]:
    """The stored form of a dataclass."""
    plain: dict[str, Any] = asdict(value)
    return plain


def from_plain(kind: type[_T], stored: Mapping[str, Any]) -> _T:
    """The dataclass from its stored form. Fields that the form doesn't have yet get their defaults."""
    described: Any = kind
    hints = _hints(described)
    given = {name: _built(hints[name], value) for name, value in stored.items() if name in hints}
    return kind(**given)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _built(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin in (Union, types.UnionType):
        return _built(next(one for one in inner if one is not type(None)), value)
    if origin is tuple:
        return tuple(_built(inner[0], one) for one in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _built(inner[1], one) for key, one in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return from_plain(hint, value)
    return hint(value) if isinstance(hint, type) and issubclass(hint, Enum) else value
