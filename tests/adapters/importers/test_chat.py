from __future__ import annotations

from typing import Any

import pytest

from qa_worker.adapters.importers.limits import Limits
from qa_worker.domain.call import Agent, ToolSpec, fingerprint
from qa_worker.domain.transcript import Role, ToolCall, Turn
from tests.adapters.importers.records import a_chat, parsed, refused

USER = {"role": "user", "content": "Hi"}


def calling(arguments: object, name: str = "find") -> dict[str, Any]:
    """An assistant message that calls one tool."""
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "t1", "type": "function", "function": function}],
    }


def test_messages_become_turns() -> None:
    call = parsed(
        a_chat(
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi", "start_time": 1, "end_time": 1.5},
            calling('{"code": "HT-1"}'),
            {"role": "tool", "tool_call_id": "t1", "content": '{"ok": true}'},
            {"role": "assistant", "content": "Found it."},
            id="c-1",
        )
    )

    assert call.ref == "c-1"
    assert call.agent == Agent("default", instructions="Be brief.")
    assert call.transcript.turns == (
        Turn(Role.CALLER, "Hi", 1.0, 1.5),
        Turn(Role.AGENT, "", tool_calls=(ToolCall("find", {"code": "HT-1"}, "t1"),)),
        Turn(Role.TOOL, '{"ok": true}', tool_call_id="t1"),
        Turn(Role.AGENT, "Found it."),
    )


def test_a_bare_list_of_messages_is_one_call() -> None:
    assert parsed([USER]) == parsed(a_chat(USER))


def test_what_stands_beside_the_messages_is_kept() -> None:
    tool = {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object"}}}
    call = parsed(
        a_chat(
            USER,
            external_id="v-1",
            agent={"id": "clinic", "version": "2"},
            started_at="2026-11-02T14:05:00Z",
            tools=[tool, {"name": "flat"}],
            expected={"required_tools": ["find"]},
            metadata={"a": 1},
        )
    )

    assert call.agent == Agent(
        "clinic", version="2", tools=(ToolSpec("find", "Finds.", {"type": "object"}), ToolSpec("flat"))
    )
    assert (call.external_id, call.expected.required_tools, call.metadata) == ("v-1", ("find",), {"a": 1})
    assert call.started_at is not None


def test_system_and_developer_texts_are_instructions_each_said_once() -> None:
    system = {"role": "system", "content": "Be brief."}
    call = parsed(a_chat(system, USER, {"role": "developer", "content": "Be kind."}, system, agent={"id": "a"}))

    assert call.agent.instructions == "Be brief.\n\nBe kind."
    assert [turn.role for turn in call.transcript] == [Role.CALLER]


def test_the_same_call_without_an_id_gets_the_same_id() -> None:
    call, again = parsed(a_chat(USER)), parsed(a_chat(USER, metadata={"seen": 2}))

    assert call.ref == again.ref == f"chat-{fingerprint(call)[:12]}"
    assert call.ref != parsed(a_chat({"role": "user", "content": "Ho"})).ref


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb"),
        ([{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}], "a\nno"),
        (["plain"], "plain"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], "[image]"),
        ([{"type": "input_audio", "input_audio": {}}, {"type": "file"}], "[audio]\n[file]"),
        ([{"type": "thinking"}, {"type": "</x>"}], "[thinking]\n[other content]"),
    ],
)
def test_content_comes_in_many_forms(content: object, text: str) -> None:
    assert parsed(a_chat({"role": "user", "content": content})).transcript.turns == (Turn(Role.CALLER, text),)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "", "refusal": "I can't."},
        {"content": None, "audio": {"transcript": "I can't."}},
        {"content": "I can't."},
    ],
)
def test_a_refusal_and_a_spoken_answer_are_what_the_agent_said(message: dict[str, Any]) -> None:
    assert parsed(a_chat({"role": "assistant"} | message)).transcript.turns[0].text == "I can't."


@pytest.mark.parametrize("content", [None, "", []])
def test_a_tool_message_without_content_is_kept(content: object) -> None:
    call = parsed(a_chat(calling("{}"), {"role": "tool", "tool_call_id": "t1", "content": content}))

    assert call.transcript.tool_uses()[0].result == Turn(Role.TOOL, "", tool_call_id="t1")


@pytest.mark.parametrize("arguments", ['{"code": "HT', "find it", "[]", "1", '{"a": 1} {"b": 2}'])
def test_arguments_that_are_no_json_object_are_the_agents_fault(arguments: str) -> None:
    call = parsed(a_chat(calling(arguments)))

    assert call.transcript.turns[0].tool_calls[0].malformed == arguments


def test_arguments_given_as_an_object_are_accepted() -> None:
    assert parsed(a_chat(calling({"a": 1}))).transcript.turns[0].tool_calls[0].arguments == {"a": 1}


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ({"role": "caller", "content": "Hi"}, "role", 'is "caller"'),
        ({"content": "Hi"}, "role", "is missing"),
        ({"role": "user", "content": 5}, "content", "is a number"),
        ({"role": "user", "content": [{"text": "x"}]}, "content", "without a type"),
        ({"role": "user", "content": [7]}, "content", "is a number"),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "content", "whose text is null"),
        ({"role": "user", "text": "Hi"}, "text", "is not a field"),
        ({"role": "assistant", "function_call": {}}, "function_call", "is not a field"),
        ({"role": "user", "content": "Hi", "start_s": 1}, "start_s", "is not a field"),
        ({"role": "user", "content": "Hi", "start_time": -1}, "start_time", "is negative"),
        ({"role": "user", "content": "Hi", "start_time": 2, "end_time": 1}, "end_time", "before start_time"),
        ({"role": "assistant", "tool_calls": [{"id": "t"}]}, "tool_calls[0].function", "is missing"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "tool_calls[0].function.name", "is missing"),
        ({"role": "user", "tool_calls": [{"function": {"name": "x"}}]}, "tool_calls", "a message of user"),
        ({"role": "tool", "tool_call_id": ["t"]}, "tool_call_id", "is a list"),
    ],
)
def test_a_wrong_field_of_a_message_is_named_with_its_path(message: dict[str, Any], field: str, words: str) -> None:
    error = refused(a_chat(USER, message))

    assert error.field == f"messages[1].{field}"
    assert words in error.problem
    assert error.fix


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        (a_chat({"role": "system", "content": "Be brief."}), "messages"),
        ([], "messages"),
        (a_chat(USER, id=""), "id"),
        (a_chat(USER, tools=[{"type": "function", "function": {}}]), "tools[0].name"),
        (a_chat(USER, expectd={}), "expectd"),
    ],
)
def test_a_wrong_field_beside_the_messages_is_named(record: object, field: str) -> None:
    assert refused(record).field == field


def test_the_bounds_hold_for_messages_too() -> None:
    assert refused(a_chat(USER, USER), limits=Limits(max_turns=1)).field == "messages"
    assert refused(a_chat(USER), limits=Limits(max_transcript_bytes=10)).field == "messages"
    assert refused(a_chat(USER), limits=Limits(max_text_chars=1)).field == "messages[0].content"
