"""Whatever comes in: a call, or an InvalidInput that can be shown."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qa_worker.adapters.importers.parse import parse_call
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.domain.call import Call
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.rubric import Rubric
from qa_worker.domain.transcript import from_json, to_json
from qa_worker.rubrics import default_rubric_text
from tests.adapters.importers.records import LIMITS, a_chat, a_record, read

# Without a deadline: how fast the machine is proves nothing.
ROBUST = settings(deadline=None, max_examples=150)

FULL = a_record(
    agent={"id": "a", "name": "A", "version": "1", "instructions": "x", "tools": [{"name": "find", "parameters": {}}]},
    external_id="v",
    started_at="2026-11-02T14:05:00Z",
    expected={"outcome": "x", "required_tools": ["find"], "required_phrases": ["y"]},
    turns=[
        {"role": "caller", "text": "Hi", "start_s": 0.0, "end_s": 1.0},
        {"role": "agent", "tool_calls": [{"id": "t", "name": "find", "arguments": {"a": 1}}]},
        {"role": "tool", "text": "{}", "tool_call_id": "t", "is_error": False},
    ],
)
CHAT = a_chat(
    {"role": "system", "content": "x"},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}], "start_time": 0, "end_time": 1},
    {"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "find", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "t", "content": None},
    tools=[{"type": "function", "function": {"name": "find"}}],
)
# Keys that the importers look at are drawn often, or hardly anything would get past the first check.
KEYS = st.text(max_size=5) | st.sampled_from(
    (
        *(
            "id",
            "agent",
            "turns",
            "messages",
            "calls",
            "role",
            "text",
            "content",
            "tool_calls",
            "function",
            "name",
            "type",
        ),
        *("arguments", "start_s", "end_s", "started_at", "expected", "metadata", "tools", "audio", "required_phrases"),
    )
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**38)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["caller", "agent", "tool", "user", "assistant", "2026-11-02T14:05:00Z", "\x00", "\ud800", "{}"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)


def outcome(record: object) -> Call | InvalidInput:
    """What becomes of a record; anything else that it raises fails the test."""
    try:
        return parse_call(record, limits=LIMITS, source="s", line=1)
    except InvalidInput as error:
        return error


def rubric_outcome(text: str) -> Rubric | InvalidInput:
    """What becomes of a rubric's text."""
    try:
        return parse_rubric(text, source="s")[0]
    except InvalidInput as error:
        return error


def check_error(error: InvalidInput) -> None:
    """Assert that an error says what it must and can be shown."""
    assert error.field
    assert error.problem
    assert error.fix
    assert error.source == "s"
    assert str(error).encode()


def check(record: object) -> None:
    """Assert that a record is refused with a clear error, or taken and can be stored."""
    found = outcome(record)
    if isinstance(found, InvalidInput):
        check_error(found)
        return
    stored = json.dumps([to_json(found.transcript), found.metadata], allow_nan=False, ensure_ascii=False)
    assert stored.encode()
    assert from_json(json.loads(stored)[0]) == found.transcript


def replaced(record: dict[str, Any], path: list[int], value: object) -> Any:
    """The record with the value at one place, chosen by `path`, replaced."""
    changed: Any = copy.deepcopy(record)
    place: Any = changed
    for step in path:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[step % len(keys)]
        if not isinstance(place[key], dict | list) or not place[key] or step == path[-1]:
            place[key] = value
            return changed
        place = place[key]
    return changed


@ROBUST
@given(VALUES)
def test_any_json_is_a_call_or_invalid_input(value: object) -> None:
    check(value)


@ROBUST
@given(st.sampled_from([FULL, CHAT]), st.lists(st.integers(0, 40), min_size=1, max_size=5), VALUES)
def test_a_record_spoilt_in_one_place_is_a_call_or_invalid_input(
    record: dict[str, Any], path: list[int], value: object
) -> None:
    check(replaced(record, path, value))


@ROBUST
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read(data: bytes) -> None:
    for item in read(data):
        assert isinstance(item, Call | InvalidInput)


@ROBUST
@given(st.integers(0, 700), st.binary(max_size=3))
def test_a_file_spoilt_in_one_place_is_read(place: int, junk: bytes) -> None:
    whole = "".join(json.dumps(record) + "\n" for record in (FULL, CHAT)).encode()

    for item in read(whole[:place] + junk + whole[place + len(junk) :]):
        assert isinstance(item, Call | InvalidInput)


@ROBUST
@given(st.lists(VALUES, max_size=3), st.sampled_from([None, 1]))
def test_any_document_is_read(values: list[object], indent: int | None) -> None:
    for item in read(json.dumps(values, indent=indent)):
        assert isinstance(item, Call | InvalidInput)


RUBRIC = default_rubric_text()
YAML_BITS = st.sampled_from(
    (
        *("!!int x", "!!timestamp x", "!!binary x", "!!python/name:os.system", "!!float y", "!!bool z", "!!set {a}"),
        *("&a [*a]", "*b", "{{", "- - -", "\t", "\x00", "? [1]", "<<: 5", "%YAML 9", "yes", "''", "|", "\ud800"),
        *("2026-13-45", ".nan", "1:2:3"),
    )
)


@ROBUST
@given(st.integers(0, len(RUBRIC)), st.integers(0, 40), st.text(max_size=6) | YAML_BITS)
def test_a_spoilt_rubric_is_a_rubric_or_invalid_input(place: int, length: int, junk: str) -> None:
    found = rubric_outcome(RUBRIC[:place] + junk + RUBRIC[place + length :])

    if isinstance(found, InvalidInput):
        check_error(found)


@ROBUST
@given(st.text(max_size=80) | st.lists(YAML_BITS, max_size=4).map(" ".join) | VALUES.map(json.dumps))
def test_any_text_is_a_rubric_or_invalid_input(text: str) -> None:
    found = rubric_outcome(text)

    if isinstance(found, InvalidInput):
        check_error(found)
