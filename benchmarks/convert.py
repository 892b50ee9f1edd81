"""Public data sets as files in the documented format of calls, one JSON object a line.

    python -m benchmarks.convert eva-progression|eva-faithfulness|tau2-retail|tau2-voice --data DIR --out FILE

What judges must not see (ratings, rewards, the task) stays behind; `--labels FILE` writes it beside the calls, by id.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]

TICK_S = 0.2
STOP_TOKENS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")


@dataclass(frozen=True)
class Labelled:
    """One call in the documented format, and what people or the end state said of it."""

    call: Row
    labels: Row = field(default_factory=dict)


def eva(data: Path, name: str) -> list[Labelled]:
    """EVA's judge-validation set `name` (`conversation_progression` or `faithfulness`).

    Labels: `rating` 1-3, `failure_modes` (a list of strings), `description`, and `invalid` where the set's makers withdrew
    the label: such a conversation can be graded, but not measured on.
    """
    agent = eva_agent(data)
    rows = [json.loads(line) for line in (data / "eva" / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [
        Labelled(
            call={"id": f"eva-{name}-{row['id']}", "agent": agent, "turns": list(eva_turns(row["trace"]))},
            labels={
                "rating": row["expected_rating"],
                "failure_modes": _failure_modes(row["failure_mode"]),
                "description": row["description"],
                "invalid": bool(row.get("invalid")),
            },
        )
        for row in rows
    ]


def eva_agent(data: Path) -> Row:
    """The airline agent: its policy, and its tools with parameters as JSON schemas."""
    source = yaml.safe_load((data / "eva" / "airline_agent.yaml").read_text("utf-8"))
    return {
        "id": source["id"],
        "name": source["name"],
        "instructions": f"{source['role']}\n\n{source['instructions']}",
        "tools": [_eva_tool(tool) for tool in source["tools"]],
    }


def _eva_tool(tool: Mapping[str, Any]) -> Row:
    required = tool.get("required_parameters", [])
    parameters = [*required, *tool.get("optional_parameters", [])]
    return {
        "name": tool["name"],
        "description": tool["description"],
        "parameters": {
            "type": "object",
            "properties": {p["name"]: {k: v for k, v in p.items() if k != "name"} for p in parameters},
            "required": [p["name"] for p in required],
        },
    }


def eva_turns(trace: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Turns of one trace. A call of a tool is an agent turn without text; a result belongs to the oldest open call of that tool."""
    waiting: list[tuple[str, str]] = []
    for number, event in enumerate(trace):
        kind = event["event_type"]
        if kind == "tool_call":
            call_id = f"call-{number}"
            waiting.append((event["tool_name"], call_id))
            arguments = _arguments(event["params"])
            call = {"id": call_id, "name": event["tool_name"], "arguments": arguments}
            yield {"role": "agent", "text": "", "tool_calls": [call]}
        elif kind == "tool_response":
            response = event["response"]
            text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
            yield {"role": "tool", "text": text, **_answered(waiting, event["tool_name"])}
        else:
            yield {"role": "agent" if kind == "agent_utterance" else "caller", "text": event["utterance"]}


def _answered(waiting: list[tuple[str, str]], tool: str) -> Row:
    for entry in waiting:
        if entry[0] == tool:
            waiting.remove(entry)
            return {"tool_call_id": entry[1]}
    return {}


def _arguments(params: object) -> object:
    """Some traces hold the arguments as JSON text inside the JSON."""
    return json.loads(params) if isinstance(params, str) else params


def _failure_modes(value: str | list[str] | None) -> list[str]:
    parts = value if isinstance(value, list) else (value or "").split(",")
    return [part.strip() for part in parts if part.strip()]


def tau2_retail(data: Path) -> list[Labelled]:
    """Retail support runs of tau2. Label: `reward` by the end state of the shop's database."""
    source = json.loads((data / "tau2_retail" / "tau2_retail.json").read_text("utf-8"))
    agent = {
        "id": "tau2-retail",
        "name": "Retail support",
        "instructions": source["info"].get("environment_info", {}).get("policy", ""),
    }
    return [
        Labelled(
            call={"id": f"tau2-retail-{run['id']}", "agent": agent, "turns": list(tau2_turns(run["messages"]))},
            labels={"reward": run["reward_info"]["reward"]},
        )
        for run in source["simulations"]
    ]


def tau2_turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Turns of one text run: agent text unwrapped from `{"message": ..}`, the simulator's stop tokens taken out."""
    roles = {"assistant": "agent", "user": "caller", "tool": "tool"}
    for message in messages:
        role = roles[message["role"]]
        text = message["content"] or ""
        if role == "tool":
            error = {"is_error": True} if message.get("error") else {}
            yield {"role": role, "text": text, "tool_call_id": message["id"], **error}
            continue
        text = _unwrapped(text) if role == "agent" else _without_stop_tokens(text)
        calls = [
            {"id": call["id"], "name": call["name"], "arguments": call["arguments"]}
            for call in message.get("tool_calls") or ()
        ]
        if text or calls:
            yield {"role": role, "text": text, **({"tool_calls": calls} if calls else {})}


def _unwrapped(text: str) -> str:
    try:
        wrapped = json.loads(text)
    except json.JSONDecodeError:
        return text
    return str(wrapped["message"]) if isinstance(wrapped, dict) and "message" in wrapped else text


def _without_stop_tokens(text: str) -> str:
    for token in STOP_TOKENS:
        text = text.replace(token, "")
    return text.strip()


@dataclass(frozen=True)
class Run:
    """Contiguous ticks in which one side speaks; `kind` is None, `backchannel`, `vocal_tic` or `non_directed`."""

    role: str
    start_tick: int
    end_tick: int
    kind: str | None = None


def tau2_voice_runs(data: Path) -> dict[str, list[Run]]:
    """Runs of speech of each full-duplex simulation, by its id, in the order in which they start."""
    folder = data / "tau2_voice_timing" / "experiment" / "simulations"
    runs = {}
    for path in sorted(folder.glob("*.json")):
        simulation = json.loads(path.read_text("utf-8"))
        ticks = _without_last_artefact(simulation["ticks"])
        both = [*_runs(ticks, "caller", "user_chunk"), *_runs(ticks, "agent", "agent_chunk")]
        runs[simulation["id"]] = sorted(both, key=lambda run: (run.start_tick, run.role))
    return runs


def tau2_voice(data: Path) -> list[Labelled]:
    """The same simulations as timed turns without words, because the data hold none; `[backchannel]` and so on as text."""
    agent = {"id": "tau2-voice", "name": "Voice agent"}
    return [
        Labelled({"id": f"tau2-voice-{name}", "agent": agent, "turns": [_timed_turn(run) for run in runs]})
        for name, runs in tau2_voice_runs(data).items()
    ]


def _timed_turn(run: Run) -> Row:
    return {
        "role": run.role,
        "text": f"[{run.kind or 'speech'}]",
        "start_s": round(run.start_tick * TICK_S, 3),
        "end_s": round(run.end_tick * TICK_S, 3),
    }


def _speaks(tick: Mapping[str, Any], side: str) -> bool:
    return bool((tick[side] or {}).get("contains_speech"))


def _without_last_artefact(ticks: list[Row]) -> list[Row]:
    """The simulator's stop signal leaves one tick of caller speech at the very end, which nobody said."""
    if len(ticks) > 1 and _speaks(ticks[-1], "user_chunk") and not _speaks(ticks[-2], "user_chunk"):
        return ticks[:-1]
    return ticks


def _runs(ticks: Sequence[Mapping[str, Any]], role: str, side: str) -> Iterator[Run]:
    start = None
    for number in range(len(ticks) + 1):
        speaks = number < len(ticks) and _speaks(ticks[number], side)
        if speaks and start is None:
            start = number
        elif not speaks and start is not None:
            yield Run(role, start, number, _kind([tick[side] for tick in ticks[start:number]]))
            start = None


def _kind(chunks: Sequence[Mapping[str, Any]]) -> str | None:
    if (chunks[0].get("turn_taking_action") or {}).get("action") == "backchannel":
        return "backchannel"
    inserts = {
        insert["type"]
        for chunk in chunks
        for effects in (chunk.get("speech_effects"), chunk.get("source_effects"))
        if (insert := (effects or {}).get("speech_insert"))
    }
    if "vocal_tic" in inserts:
        return "vocal_tic"
    return "non_directed" if inserts else None


SETS: Mapping[str, Callable[[Path], list[Labelled]]] = {
    "eva-progression": lambda data: eva(data, "conversation_progression"),
    "eva-faithfulness": lambda data: eva(data, "faithfulness"),
    "tau2-retail": tau2_retail,
    "tau2-voice": tau2_voice,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Writes one set; 2 where the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    arguments = parser.parse_args(argv)
    if not arguments.data.is_dir():
        print(f"no data at {arguments.data}; point --data at the folder with eva/ and tau2_retail/", file=sys.stderr)
        return 2
    calls = SETS[arguments.set](arguments.data)
    _write(arguments.out, [item.call for item in calls])
    if arguments.labels is not None:
        _write(arguments.labels, [{"id": item.call["id"], **item.labels} for item in calls])
    print(f"{len(calls)} calls in {arguments.out}")
    return 0


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
