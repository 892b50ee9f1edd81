"""What is wrong with a message, what of it is kept, what tells it from others."""

from __future__ import annotations

import inspect
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.application.dead_letters import OpenLetter, UnreadMessage
from qa_worker.application.unread_messages import (
    BAD_ARGUMENTS,
    HEAD_BYTES,
    UNKNOWN_TASK,
    UNREADABLE,
    Fault,
    fault_of,
    payload_of,
    readable,
    unread_message,
)
from qa_worker.celery_app import app
from qa_worker.domain.dead_letter import LetterKind
from qa_worker.messages import REQUIRED, Message, Queue, TaskName

KNOWN = {name.value for name in TaskName} | {"celery.backend_cleanup"}
ID = "1c8ba2bc-ef9f-490f-b4e9-61d5f378b5b0"
FAULT = Fault(UNREADABLE, "It is odd.")
AT = datetime(2026, 11, 1, tzinfo=UTC)


def _unread(body: bytes, *, queue: str = "send-alert", task: str = "send-alert") -> UnreadMessage:
    return unread_message(queue=queue, task=task, body=body, fault=FAULT, at=AT)


@pytest.mark.parametrize(
    ("task", "body", "reason"),
    [
        ("no-such-task", [[], {}, {}], UNKNOWN_TASK),
        ("send-alert", {"a": 1}, UNREADABLE),
        ("send-alert", 5, UNREADABLE),
        ("send-alert", "abc", UNREADABLE),
        ("send-alert", [[], {}], UNREADABLE),
        ("send-alert", [[], [1], {}], UNREADABLE),
        ("send-alert", [[], {"delivery_id": ID}, [1]], UNREADABLE),
        ("send-alert", [[ID], {}, {}], BAD_ARGUMENTS),
        ("send-alert", [[], {}, {}], BAD_ARGUMENTS),
        ("send-alert", [[], {"delivery_id": None}, {}], BAD_ARGUMENTS),
        ("send-alert", [[], {"delivery_id": "x"}, {}], BAD_ARGUMENTS),
        ("send-alert", [[], {"delivery_id": 7}, {}], BAD_ARGUMENTS),
        ("evaluate-calls", [[], {"call_ids": ID}, {}], BAD_ARGUMENTS),
        ("evaluate-calls", [[], {"call_ids": [ID, "x"]}, {}], BAD_ARGUMENTS),
        ("evaluate-call", [[], {"call_id": ID, "evaluation_id": "x"}, {}], BAD_ARGUMENTS),
    ],
)
def test_a_message_that_no_task_can_use_has_a_fault(task: str, body: object, reason: str) -> None:
    fault = fault_of(task, body, known=KNOWN)

    assert fault is not None
    assert fault.reason == reason


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("send-alert", [[], {"delivery_id": ID}, {}]),
        ("send-alert", ([], {"delivery_id": ID, "from_a_newer_version": 1}, None)),
        ("evaluate-call", [[], {"call_id": ID, "evaluation_id": None}, {"callbacks": None}]),
        ("evaluate-calls", [[], {"call_ids": [ID]}, {}]),
        ("dispatch-work", [[], {}, {}]),
        ("celery.backend_cleanup", [["anything"], {"some_id": 1}, {}]),
    ],
)
def test_a_message_that_its_task_can_use_has_none(task: str, body: object) -> None:
    assert fault_of(task, body, known=KNOWN) is None


@pytest.mark.parametrize("name", TaskName)
def test_what_a_task_must_be_told_is_what_it_can_not_do_without(name: TaskName) -> None:
    app.loader.import_default_modules()
    parameters = inspect.signature(app.tasks[name.value].run).parameters.values()

    needed = {one.name for one in parameters if one.default is one.empty and one.kind is one.KEYWORD_ONLY}

    assert needed == REQUIRED.get(name, frozenset())


def test_a_short_text_is_kept_whole_and_anything_else_as_its_beginning() -> None:
    assert (_unread(b'{"a": 1}').head, _unread(b'{"a": 1}').whole) == ('{"a": 1}', True)
    for body in (b"\xff\xfe\x00", b"a\x00b", b"x" * (HEAD_BYTES + 1), "ä".encode() * HEAD_BYTES):
        kept = _unread(body)
        assert (kept.whole, kept.size) == (False, len(body))
        assert 0 < len(kept.head.encode()) <= HEAD_BYTES
        assert "\x00" not in kept.head


@given(st.binary(max_size=5000))
def test_any_bytes_can_be_kept(body: bytes) -> None:
    kept = _unread(body)

    assert len(kept.head.encode()) <= HEAD_BYTES
    assert not kept.whole or kept.head.encode() == body
    json.dumps(payload_of(kept))


def test_the_same_arguments_are_the_same_message_however_they_are_written() -> None:
    one = _unread(b'[[], {"a": 1, "b": 2}, {"callbacks": null}]')
    other = _unread(b'[[],{"b":2,"a":1},{}]')

    assert one.ref_id == other.ref_id
    assert len({one.ref_id, _unread(b'[[], {"a": 2}, {}]').ref_id, _unread(b"junk").ref_id}) == 3
    assert _unread(b"junk", queue="a").ref_id != _unread(b"junk", queue="b").ref_id


def test_deep_nesting_is_just_another_unreadable_message() -> None:
    assert _unread(b"[" * 100_000).whole is False


def _letter(message: UnreadMessage, **changes: Any) -> OpenLetter:
    given = {"queue": message.queue, "task": message.task, "payload": payload_of(message), **changes}
    return OpenLetter(id=uuid.uuid4(), kind=LetterKind.MESSAGE, ref_id=message.ref_id, **given)


def test_a_whole_message_with_a_known_task_can_be_sent_again() -> None:
    message = _unread(json.dumps([[], {"delivery_id": ID}, {}]).encode())

    assert readable(_letter(message)) == Message(TaskName.SEND_ALERT, Queue.SEND_ALERT, {"delivery_id": ID})


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (b"x" * 3000, {}),
        (b"not json", {}),
        (b"[" * 2000, {}),
        (json.dumps([[], {"delivery_id": ID}, {}]).encode(), {"task": "no-such-task"}),
        (json.dumps([[], {"delivery_id": ID}, {}]).encode(), {"queue": "somewhere"}),
        (json.dumps([[], {"delivery_id": ID}, {}]).encode(), {"queue": "dead-letter"}),
        (json.dumps([[], {"delivery_id": "x"}, {}]).encode(), {}),
    ],
)
def test_what_still_can_not_be_read_is_refused_with_the_reason(body: bytes, changes: dict[str, Any]) -> None:
    fault = readable(_letter(_unread(body), **changes))

    assert isinstance(fault, Fault)
    assert fault.problem.endswith(".")
