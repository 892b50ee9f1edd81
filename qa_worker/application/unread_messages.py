"""Messages that can't be used: what is wrong with one, what of it is kept, and whether it can be used after all."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qa_worker.application.dead_letters import OpenLetter, UnreadMessage
from qa_worker.domain.transcript import canonical
from qa_worker.messages import REQUIRED, Message, Queue, TaskName

HEAD_BYTES = 2048
UNREADABLE, UNKNOWN_TASK, BAD_ARGUMENTS = "unreadable", "unknown_task", "bad_arguments"
"""The reasons of letters: no task message at all, a task that nobody knows, arguments that it can't be called with."""
_NAMESPACE = uuid.UUID("0d1c6c3e-3d52-5b1e-a1f5-5b3a0c6c7d21")
_NAME_CHARS = 100
_PARTS = 3
_OURS = frozenset(TaskName)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a message. `problem` quotes nothing of it."""

    reason: str
    problem: str


def fault_of(task: str, body: object, *, known: Container[str]) -> Fault | None:
    """What is wrong with the decoded body of a message to this task; None where it can be used.

    Checked before a task is begun: Celery 5.7's worker ends itself over a body that isn't three things (measured), and the
    next worker after it does.
    """
    if task not in known:
        return Fault(UNKNOWN_TASK, "This version of the program knows no task of this name.")
    parts = body if isinstance(body, list | tuple) else ()
    if len(parts) != _PARTS or not (isinstance(parts[0], list | tuple) and isinstance(parts[1], dict)):
        return Fault(UNREADABLE, "It is not [args, kwargs, embed], as messages to tasks are.")
    if not isinstance(parts[2], dict | None):
        return Fault(UNREADABLE, "Its third part is no object.")
    return _wrong_arguments(TaskName(task), parts[0], parts[1]) if task in _OURS else None


def unread_message(*, queue: str, task: str, body: bytes, fault: Fault, at: datetime) -> UnreadMessage:
    """What is kept of a message."""
    text, whole = _head(body)
    said = hashlib.sha256(_said(body)).hexdigest()
    return UnreadMessage(
        ref_id=uuid.uuid5(_NAMESPACE, f"{queue}\n{task}\n{said}"),
        queue=_printable(queue),
        task=_printable(task),
        reason=fault.reason,
        problem=fault.problem,
        died_at=at,
        size=len(body),
        whole=whole,
        head=text,
    )


def payload_of(message: UnreadMessage) -> dict[str, Any]:
    """What a letter's `payload` holds of a message."""
    return {"head": message.head, "bytes": message.size, "whole": message.whole}


def readable(letter: OpenLetter) -> Message | Fault:
    """The message of a letter, if it can be used now: another version of the program may know its task."""
    payload = letter.payload
    if not payload.get("whole"):
        return Fault(UNREADABLE, f"It is no text, or only its first {HEAD_BYTES} bytes were kept.")
    try:
        body = json.loads(payload["head"])
    except (ValueError, RecursionError):
        return Fault(UNREADABLE, "It is no JSON.")
    fault = fault_of(letter.task, body, known=_OURS)
    if fault is not None:
        return fault
    if letter.queue not in set(Queue) - {Queue.DEAD_LETTER}:
        return Fault(UNREADABLE, "Its queue is none of ours.")
    return Message(TaskName(letter.task), Queue(letter.queue), body[1])


def _wrong_arguments(task: TaskName, args: object, kwargs: Mapping[str, object]) -> Fault | None:
    if args:
        return Fault(BAD_ARGUMENTS, "It has positional arguments, and our tasks have names for theirs.")
    required = REQUIRED.get(task, frozenset())
    missing = sorted(required - {name for name, value in kwargs.items() if value is not None})
    if missing:
        return Fault(BAD_ARGUMENTS, f"It lacks {', '.join(missing)}.")
    for name, value in kwargs.items():
        if name.endswith("_id") and value is not None and not _is_id(value):
            return Fault(BAD_ARGUMENTS, f"{_printable(name)} is no UUID.")
        if name.endswith("_ids") and not (isinstance(value, list) and all(map(_is_id, value))):
            return Fault(BAD_ARGUMENTS, f"{_printable(name)} is no list of UUIDs.")
    return None


def _is_id(value: object) -> bool:
    try:
        uuid.UUID(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _head(body: bytes) -> tuple[str, bool]:
    """The beginning as text that any database takes, and whether it is everything, unchanged."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if len(body) <= HEAD_BYTES and "\x00" not in text and (text or not body):
        return text, True
    shown = body[:HEAD_BYTES].decode(errors="backslashreplace").replace("\x00", "\\x00")
    return shown.encode()[:HEAD_BYTES].decode(errors="ignore"), False


def _said(body: bytes) -> bytes:
    """What tells a message from others: its arguments, however they are written; of anything else all its bytes."""
    try:
        parts = json.loads(body)
        return canonical(parts[:2]).encode() if isinstance(parts, list) and len(parts) == _PARTS else body
    except (ValueError, RecursionError):
        return body


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:_NAME_CHARS])
