"""A letter as it lies on the dead-letter queue: flat JSON, for monitors to read and for the table to get back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from qa_worker.application.dead_letters import Notice
from qa_worker.domain.dead_letter import LetterKind

_MOST = 2**31 - 1


def to_json(notice: Notice) -> dict[str, Any]:
    """The body of its message."""
    return {name: _plain(value) for name, value in asdict(notice).items()}


def from_json(read: Mapping[str, Any]) -> Notice:
    """What `to_json` has written.

    Raises ValueError, TypeError, KeyError or AttributeError where the table couldn't take it.
    """
    return Notice(
        letter_id=uuid.UUID(read["letter_id"]),
        announcement=uuid.UUID(read["announcement"]),
        said_at=_time(read["said_at"]),
        kind=LetterKind(read["kind"]),
        reason=_text(read["reason"]),
        queue=_text(read["queue"]),
        task=_text(read["task"]),
        ref_id=_id(read["ref_id"]),
        workspace_id=_id(read["workspace_id"]),
        endpoint_id=_id(read["endpoint_id"]),
        attempts=_count(read["attempts"]),
        first_error=_text(read["first_error"]),
        last_error=_text(read["last_error"]),
        died_at=_time(read["died_at"]),
        deaths=_count(read["deaths"]),
        again_of=_id(read["again_of"]),
        payload={
            _text(name): value if isinstance(value, int) else _text(value) for name, value in read["payload"].items()
        },
    )


def _plain(value: object) -> object:
    match value:
        case uuid.UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case _:
            return value


def _id(value: str | None) -> uuid.UUID | None:
    return None if value is None else uuid.UUID(value)


def _time(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError(value)
    return at


def _text(value: str) -> str:
    """Text that PostgreSQL takes: without NUL, and without halves of characters."""
    if "\x00" in value:
        raise ValueError(value)
    value.encode()
    return value


def _count(value: int) -> int:
    if not 0 <= value <= _MOST:
        raise ValueError(value)
    return value
