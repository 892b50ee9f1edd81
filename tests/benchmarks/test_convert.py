from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.convert import Run, eva, eva_turns, main, tau2_retail, tau2_turns, tau2_voice, tau2_voice_runs

AGENT_YAML = """
id: agent_1
name: Desk
role: You are a desk.
instructions: Be kind.
tools:
- id: find
  name: find
  description: Finds a booking.
  required_parameters:
  - {name: code, type: string, description: The code}
  optional_parameters:
  - {name: cabin, type: string, enum: [first, any]}
"""


def said(kind: str, text: str) -> dict[str, Any]:
    return {"event_type": f"{kind}_utterance", "utterance": text}


def called(params: object, tool: str = "find") -> dict[str, Any]:
    return {"event_type": "tool_call", "tool_name": tool, "params": params}


def answered(response: object, tool: str = "find") -> dict[str, Any]:
    return {"event_type": "tool_response", "tool_name": tool, "response": response}


def test_an_eva_trace_becomes_turns_with_results_tied_to_their_calls() -> None:
    trace = [said("agent", "Hi"), called({"code": "A1"}), called('{"code": "A2"}'), answered({"ok": 1}), answered("no")]
    greeting, first, second, found, missed = eva_turns(trace)
    assert greeting == {"role": "agent", "text": "Hi"}
    assert first["tool_calls"] == [{"id": "call-1", "name": "find", "arguments": {"code": "A1"}}]
    assert second["tool_calls"][0]["arguments"] == {"code": "A2"}
    assert found == {"role": "tool", "text": '{"ok": 1}', "tool_call_id": "call-1"}
    assert missed == {"role": "tool", "text": "no", "tool_call_id": "call-2"}


def test_a_result_nobody_asked_for_stays_without_an_id() -> None:
    assert list(eva_turns([answered("lost")])) == [{"role": "tool", "text": "lost"}]


def write_eva(folder: Path) -> None:
    (folder / "eva").mkdir()
    (folder / "eva" / "airline_agent.yaml").write_text(AGENT_YAML, "utf-8")
    rows: list[dict[str, Any]] = [
        {"id": 1, "failure_mode": "vague_questions, repetitive_tool_calls", "invalid": False},
        {"id": 2, "failure_mode": None, "invalid": True},
        {"id": 3, "failure_mode": [""], "invalid": None},
    ]
    common = {"trace": [said("user", "Hello")], "expected_rating": 2, "description": "why"}
    lines = [json.dumps({**common, **row}) for row in rows]
    (folder / "eva" / "faithfulness.jsonl").write_text("\n".join(lines), "utf-8")


def test_eva_calls_carry_the_agent_and_keep_their_labels_apart(tmp_path: Path) -> None:
    write_eva(tmp_path)
    first, withdrawn, third = eva(tmp_path, "faithfulness")
    assert withdrawn.labels["invalid"]
    assert first.labels == {
        "rating": 2,
        "failure_modes": ["vague_questions", "repetitive_tool_calls"],
        "description": "why",
        "invalid": False,
    }
    assert third.labels["failure_modes"] == []
    assert set(first.call) == {"id", "agent", "turns"}
    (tool,) = first.call["agent"]["tools"]
    assert tool["parameters"]["required"] == ["code"]
    assert tool["parameters"]["properties"]["cabin"] == {"type": "string", "enum": ["first", "any"]}


def test_tau2_messages_are_unwrapped_and_stop_tokens_vanish() -> None:
    calls = [{"id": "c1", "name": "find", "arguments": {"code": "A1"}, "requestor": "assistant"}]
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": '{"message": "Hi\\nthere"}', "tool_calls": None},
        {"role": "user", "content": "Hello {not json", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": None, "id": "c1", "error": True},
        {"role": "assistant", "content": "Plain text", "tool_calls": None},
        {"role": "assistant", "content": '["a list"]', "tool_calls": None},
        {"role": "user", "content": "Bye ###STOP###", "tool_calls": None},
        {"role": "user", "content": "###TRANSFER###", "tool_calls": None},
    ]
    assert list(tau2_turns(messages)) == [
        {"role": "agent", "text": "Hi\nthere"},
        {"role": "caller", "text": "Hello {not json"},
        {
            "role": "agent",
            "text": "",
            "tool_calls": [{"id": "c1", "name": "find", "arguments": {"code": "A1"}}],
        },
        {"role": "tool", "text": "", "tool_call_id": "c1", "is_error": True},
        {"role": "agent", "text": "Plain text"},
        {"role": "agent", "text": '["a list"]'},
        {"role": "caller", "text": "Bye"},
    ]


def test_tau2_rewards_and_tasks_stay_out_of_the_calls(tmp_path: Path) -> None:
    (tmp_path / "tau2_retail").mkdir()
    message = {"role": "user", "content": "Hello", "tool_calls": None}
    run = {"id": "r1", "task_id": "7", "messages": [message], "reward_info": {"reward": 0.0, "secret": 1}}
    source = {"info": {"environment_info": {"policy": "Be kind."}}, "tasks": [{"id": "7"}], "simulations": [run]}
    (tmp_path / "tau2_retail" / "tau2_retail.json").write_text(json.dumps(source), "utf-8")
    (item,) = tau2_retail(tmp_path)
    assert item.labels == {"reward": 0.0}
    assert item.call["agent"]["instructions"] == "Be kind."
    assert "secret" not in json.dumps(item.call)


def tick(*, user: bool, agent: bool, **user_extra: object) -> dict[str, Any]:
    return {"user_chunk": {"contains_speech": user, **user_extra}, "agent_chunk": {"contains_speech": agent}}


def write_voice(folder: Path, ticks: list[dict[str, Any]]) -> None:
    simulations = folder / "tau2_voice_timing" / "experiment" / "simulations"
    simulations.mkdir(parents=True)
    (simulations / "s.json").write_text(json.dumps({"id": "s", "ticks": ticks}), "utf-8")


def test_ticks_become_runs_of_speech_with_their_kinds(tmp_path: Path) -> None:
    tic = {"speech_effects": {"speech_insert": {"type": "vocal_tic"}}}
    side = {"source_effects": {"speech_insert": {"type": "non_directed_phrase"}}}
    ticks = [
        tick(user=True, agent=False),
        tick(user=True, agent=False),
        tick(user=False, agent=True),
        tick(user=True, agent=True, turn_taking_action={"action": "backchannel"}),
        tick(user=False, agent=True),
        tick(user=True, agent=False, **tic),
        tick(user=False, agent=False, **side),
        tick(user=True, agent=False, **side),
        tick(user=False, agent=True),
        tick(user=True, agent=True),
    ]
    write_voice(tmp_path, ticks)
    assert tau2_voice_runs(tmp_path)["s"] == [
        Run("caller", 0, 2),
        Run("agent", 2, 5),
        Run("caller", 3, 4, "backchannel"),
        Run("caller", 5, 6, "vocal_tic"),
        Run("caller", 7, 8, "non_directed"),
        Run("agent", 8, 9),
    ]


def test_runs_become_timed_turns(tmp_path: Path) -> None:
    write_voice(tmp_path, [tick(user=False, agent=True), tick(user=True, agent=False), tick(user=True, agent=False)])
    (item,) = tau2_voice(tmp_path)
    assert item.call["turns"] == [
        {"role": "agent", "text": "[speech]", "start_s": 0.0, "end_s": 0.2},
        {"role": "caller", "text": "[speech]", "start_s": 0.2, "end_s": 0.6},
    ]


def test_the_command_writes_calls_and_labels_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_eva(tmp_path)
    out, labels = tmp_path / "calls.jsonl", tmp_path / "labels.jsonl"
    command = ["eva-faithfulness", "--data", str(tmp_path), "--out", str(out), "--labels", str(labels)]
    assert main(command) == 0
    assert "3 calls" in capsys.readouterr().out
    assert "rating" not in out.read_text("utf-8")
    assert [json.loads(line)["id"] for line in labels.read_text("utf-8").splitlines()] == [
        "eva-faithfulness-1",
        "eva-faithfulness-2",
        "eva-faithfulness-3",
    ]


def test_the_command_says_where_it_looked_for_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tau2-retail", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
