"""Reading a target's settings: they come from a file or a row, and are looked at once, before a run's first turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qa_worker.domain.errors import InvalidInput


def text(settings: Mapping[str, Any], name: str, *, example: str, default: str | None = None) -> str:
    """A text. Raises InvalidInput where there is none and no default."""
    value = settings.get(name, default)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"target.{name}", "is missing or no text", f"Write it, such as {example}")
    return value.strip()


def mapping(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object; empty where there is none. Raises InvalidInput."""
    value = settings.get(name) or {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(f"target.{name}", "is no object", "Write names and values")
    return value
