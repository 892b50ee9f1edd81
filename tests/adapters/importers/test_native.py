from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.parse import parse_call
from qa_worker.domain.call import Agent, Expected, ToolSpec
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.transcript import Role, ToolCall, Turn, from_json, to_json
from tests.adapters.importers.records import LIMITS, a_record, parsed, refused, with_turn

CALLING = {"role": "agent", "tool_calls": [{"id": "t1", "name": "find", "arguments": {"code": "HT-1"}}]}


def test_a_complete_record_keeps_everything_it_says() -> None:
    call = parsed(
        {
            "id": "c-1",
            "external_id": "vendor-9",
            "agent": {
                "id": "booking",
                "name": "Booking line",
                "version": "7",
                "instructions": "Be brief.",
                "tools": [{"name": "find", "description": "Finds.", "parameters": {"type": "object"}}],
            },
            "started_at": "2026-11-02T15:05:00+01:00",
            "turns": [
                {"role": "caller", "text": "Hi", "start_s": 0, "end_s": 0.5},
                CALLING,
                {"role": "tool", "text": "{}", "tool_call_id": "t1", "is_error": True},
            ],
            "expected": {
                "outcome": "Found.",
                "required_tools": ["find"],
                "forbidden_tools": ["cancel"],
                "required_phrases": ["recorded"],
                "forbidden_phrases": ["guaranteed"],
            },
            "metadata": {"label": "good", "nested": [1, None, {"x": 2.5}]},
        }
    )

    assert call.ref == "c-1"
    assert call.external_id == "vendor-9"
    tools = (ToolSpec("find", "Finds.", {"type": "object"}),)
    assert call.agent == Agent("booking", "Booking line", "7", "Be brief.", tools)
    assert call.started_at == datetime(2026, 11, 2, 14, 5, tzinfo=UTC)
    assert call.transcript.turns == (
        Turn(Role.CALLER, "Hi", 0.0, 0.5),
        Turn(Role.AGENT, "", tool_calls=(ToolCall("find", {"code": "HT-1"}, "t1"),)),
        Turn(Role.TOOL, "{}", tool_call_id="t1", is_error=True),
    )
    assert call.expected == Expected("Found.", ("find",), ("cancel",), ("recorded",), ("guaranteed",))
    assert call.metadata == {"label": "good", "nested": [1, None, {"x": 2.5}]}


def test_what_is_optional_may_be_missing_or_null() -> None:
    names = ("external_id", "agent", "started_at", "expected", "metadata")
    bare = {"id": "c-1", "turns": [{"role": "caller", "text": "Hi"}]}

    assert parsed(bare) == parsed(bare | dict.fromkeys(names))
    assert parsed(bare).agent == Agent("default")


def test_the_stored_form_of_a_transcript_can_be_imported_again() -> None:
    call = parsed(
        a_record(turns=[CALLING, {"role": "tool", "text": "x", "start_s": 1.0}, {"role": "caller", "text": "ok"}])
    )

    again = parsed(a_record(turns=to_json(call.transcript)))

    assert again.transcript == call.transcript == from_json(to_json(call.transcript))


@pytest.mark.parametrize("text", [None, ""])
def test_a_tool_turn_without_text_is_kept_as_an_empty_result(text: str | None) -> None:
    call = parsed(a_record(turns=[CALLING, {"role": "tool", "text": text, "tool_call_id": "t1"}]))

    assert call.transcript.turns[1] == Turn(Role.TOOL, "", tool_call_id="t1")


@pytest.mark.parametrize("text", ['{"code": ', "[1]", "null", '"HT-1"', '{"a": NaN}', '{"a": "\\u0000"}', '{"a":' * 70])
def test_arguments_that_are_no_json_object_are_the_agents_fault(text: str) -> None:
    call = parsed(with_turn(role="agent", tool_calls=[{"name": "find", "arguments": text}]))

    assert call.transcript.turns[0].tool_calls == (ToolCall("find", {}, malformed=text),)


@pytest.mark.parametrize(("given", "kept"), [([1, 2], "[1,2]"), (7, "7"), (True, "true")])
def test_arguments_of_another_type_are_kept_as_their_json(given: object, kept: str) -> None:
    call = parsed(with_turn(role="agent", tool_calls=[{"name": "find", "arguments": given}]))

    assert call.transcript.turns[0].tool_calls[0].malformed == kept


@pytest.mark.parametrize("given", [None, "", "  ", "{}", {}])
def test_a_call_without_arguments_is_well_formed(given: object) -> None:
    call = parsed(with_turn(role="agent", tool_calls=[{"name": "hang_up", "arguments": given}]))

    assert call.transcript.turns[0].tool_calls == (ToolCall("hang_up", {}),)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"id": None}, "id", "is null"),
        ({"id": 17}, "id", "is 17"),
        ({"id": " "}, "id", "is empty"),
        ({"id": "a\nb"}, "id", "can't be printed"),
        ({"id": "x" * 201}, "id", "201 characters; at most 200"),
        ({"external_id": 5}, "external_id", "must be a text"),
        ({"agent": "booking"}, "agent", "must be an object"),
        ({"agent": {}}, "agent.id", "is missing"),
        ({"agent": {"id": "a", "version": 7}}, "agent.version", "is 7"),
        ({"agent": {"id": "a", "tools": [{}]}}, "agent.tools[0].name", "is missing"),
        ({"agent": {"id": "a", "tools": [{"name": "x", "parameters": []}]}}, "agent.tools[0].parameters", "is a list"),
        ({"agent": {"id": "a", "tools": [{"name": "x"}] * 201}}, "agent.tools", "201 tools; at most 200"),
        ({"started_at": 1762092300}, "started_at", "is a number"),
        ({"started_at": "yesterday"}, "started_at", "no ISO 8601"),
        ({"started_at": "2026-11-02T14:05:00"}, "started_at", "no time zone"),
        ({"started_at": "2026-11-02"}, "started_at", "no time zone"),
        ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at", "no ISO 8601"),
        ({"expected": []}, "expected", "is a list"),
        ({"expected": {"required_tools": "find"}}, "expected.required_tools", 'is "find", and must be a list'),
        ({"expected": {"required_phrases": [""]}}, "expected.required_phrases[0]", "is blank"),
        ({"expected": {"required_phrases": ["ok", None]}}, "expected.required_phrases[1]", "is null"),
        ({"metadata": "x"}, "metadata", "must be an object"),
        ({"turns": None}, "turns", "is null"),
        ({"turns": {}}, "turns", "must be a list"),
        ({"turns": []}, "turns", "no turn"),
        ({"turns": ["Hi"]}, "turns[0]", "must be an object"),
        ({"messages": []}, "messages", "beside turns"),
    ],
)
def test_a_wrong_field_of_the_record_is_named(change: dict[str, Any], field: str, words: str) -> None:
    error = refused(a_record(**change))

    assert error.field == field
    assert words in error.problem
    assert error.fix


@pytest.mark.parametrize(
    ("turn", "field", "words"),
    [
        ({"text": "Hi"}, "role", "is missing"),
        ({"role": "user", "text": "Hi"}, "role", 'is "user"'),
        ({"role": "caller"}, "text", "is missing"),
        ({"role": "agent", "text": None}, "text", "is missing"),
        ({"role": "agent", "tool_calls": []}, "text", "is missing"),
        ({"role": "tool", "text": {"ok": True}}, "text", "is an object"),
        ({"role": "caller", "text": "Hi", "start_s": -0.1}, "start_s", "is negative"),
        ({"role": "caller", "text": "Hi", "start_s": "3"}, "start_s", "must be a number"),
        ({"role": "caller", "text": "Hi", "start_s": True}, "start_s", "must be a number"),
        ({"role": "caller", "text": "Hi", "end_s": 1_762_092_300}, "end_s", "more than 48 hours"),
        ({"role": "caller", "text": "Hi", "start_s": 3, "end_s": 2.5}, "end_s", "before start_s (3.0)"),
        ({"role": "caller", "text": "Hi", "tool_calls": [{"name": "x"}]}, "tool_calls", "a turn of caller"),
        ({"role": "agent", "tool_calls": [{"arguments": {}}]}, "tool_calls[0].name", "is missing"),
        ({"role": "agent", "tool_calls": {"name": "x"}}, "tool_calls", "must be a list"),
        ({"role": "tool", "text": "x", "tool_call_id": 1}, "tool_call_id", "must be a text"),
        ({"role": "tool", "text": "x", "is_error": "no"}, "is_error", "must be true or false"),
    ],
)
def test_a_wrong_field_of_a_turn_is_named_with_its_path(turn: dict[str, Any], field: str, words: str) -> None:
    error = refused(with_turn(**turn))

    assert error.field == f"turns[0].{field}"
    assert words in error.problem
    assert error.fix


@pytest.mark.parametrize(
    "turn", [{"role": "caller", "text": "", "start_s": 5}, {"role": "caller", "text": "x", "end_s": 0}]
)
def test_one_time_alone_and_an_empty_text_are_accepted(turn: dict[str, Any]) -> None:
    assert len(parsed(with_turn(**turn)).transcript) == 1


def test_speech_may_overlap() -> None:
    turns = [
        {"role": "agent", "text": "As I was saying", "start_s": 4.0, "end_s": 9.0},
        {"role": "caller", "text": "Stop", "start_s": 3.0, "end_s": 5.0},
    ]

    assert [turn.start_s for turn in parsed(a_record(turns=turns)).transcript] == [4.0, 3.0]


@pytest.mark.parametrize(
    ("record", "field", "meant"),
    [
        ({"id": "c", "turn": []}, "turn", "`turns`"),
        ({"id": "c", "transcript": []}, "transcript", "`turns`"),
        ({"id": "c", "message": []}, "message", "`messages`"),
        ({"id": "c", "agent_id": "x", "turns": [{"role": "caller", "text": "Hi"}]}, "agent_id", "`agent`"),
        (a_record(expcted={}), "expcted", "`expected`"),
        (a_record(startedAt="x"), "startedAt", "`started_at`"),
        (a_record(tools=[]), "tools", "`agent.tools`"),
        (with_turn(role="caller", content="Hi"), "turns[0].content", "`text`"),
        (with_turn(role="caller", text="Hi", start=1), "turns[0].start", "`start_s`"),
        (with_turn(role="caller", text="Hi", timestamp=1), "turns[0].timestamp", "`start_s`"),
        (with_turn(role="agent", tool_calls=[{"name": "x", "args": {}}]), "turns[0].tool_calls[0].args", "`arguments`"),
    ],
)
def test_a_near_miss_of_a_field_is_an_error_and_helped(record: dict[str, Any], field: str, meant: str) -> None:
    error = refused(record)

    assert (error.field, meant in error.fix) == (field, True)


def test_other_unknown_fields_are_ignored() -> None:
    extra = {"duration": 61, "recording_url": "x", "ended_at": "y", "tags": []}
    turn = {"role": "caller", "text": "Hi", "words": [], "confidence": 0.9}

    assert parsed(with_turn(**turn) | extra) == parsed(with_turn(role="caller", text="Hi"))


def test_the_number_of_problems_is_told() -> None:
    error = refused(a_record(id=1, turns=[{"role": "x"}, {"role": "y"}]))

    assert error.field == "id"
    assert "first of 3 problems" in error.problem


def test_source_and_line_are_carried_by_the_error() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_call({"id": 1}, limits=LIMITS, source="calls.jsonl", line=7)

    assert str(caught.value).startswith("calls.jsonl:7: id: ")


def test_a_transcript_over_the_limit_is_refused_with_its_size_and_the_limit() -> None:
    error = refused(with_turn(role="caller", text="x" * 1000), limits=Limits(max_transcript_bytes=500))

    assert error.field == "turns"
    assert "1,029 bytes" in error.problem
    assert "500" in error.problem


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (Limits(max_turns=1), "turns"),
        (Limits(max_text_chars=10), "turns[0].text"),
        (Limits(max_context_bytes=60), "agent, expected and metadata"),
    ],
)
def test_every_bound_holds(limits: Limits, field: str) -> None:
    assert refused(a_record(metadata={"note": "x" * 50}), limits=limits).field == field


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param("a\x00b", "NUL", id="nul"),
        pytest.param("cut \ud83d", "half a character", id="surrogate"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (10**40, "more than 40 digits"),
        pytest.param(10**5000, "more than 40 digits", id="unprintable"),
        (datetime(2026, 1, 1, tzinfo=UTC), "a datetime"),
        ({1, 2}, "a set"),
        ({1: "x"}, "as a key"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: object, words: str) -> None:
    error = refused(a_record(metadata={"list": [0, {"inner": value}]}))

    assert error.field == "metadata.list[1].inner"
    assert words in error.problem
    assert str(error).encode()


def test_a_key_that_cannot_be_stored_is_refused() -> None:
    error = refused(a_record(metadata={"a\x00": 1}))

    assert error.field == "metadata"
    assert "NUL" in error.problem


def test_deep_nesting_is_refused() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]

    error = refused(a_record(metadata={"deep": deep}))

    assert error.field.startswith("metadata.deep")
    assert "64 levels" in error.problem


@pytest.mark.parametrize("record", [None, 5, "text", True, 2.5])
def test_a_record_that_is_no_object_is_refused(record: object) -> None:
    assert refused(record).field == "(record)"


def test_a_single_message_is_told_from_a_call() -> None:
    assert "single message" in refused({"role": "user", "content": "Hi"}).problem
