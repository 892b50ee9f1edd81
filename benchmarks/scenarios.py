"""Suites of scenarios: wall time against one run after another and against the floor, and the memory of a worker.

python -m benchmarks.scenarios [--runs 100 128] [--spread 0.5] [--turns 20] [--latency 0.5] [--processes 1 2]
    [--memory-runs 500] [--memory-kinds scripted claude http]

Time: the agent is played by Claude (a local server that takes `--latency` for each message), the caller by fixed lines, the
judge by rules. A turn is the caller's line with the agent's answer, so one run asks the model `--turns` times. The wall
time is the suite's own, by the database's clock: from its creation to the end of its last run. `one after another` is a
measured sample of runs that were alone in the system, times the number of runs. The floor is what no schedule on as many
slots can go below: the longest run, or all work divided by the slots. 100 runs of the same length on 64 slots go in two
waves and can't reach it, whatever plays them: theirs is shown, too. 128 runs can, and so can runs of unequal length, which
are played as well: `--spread 0.5` makes the shortest half as long as `--turns`, and the longest half as long again. The
limiter is warm: some hundred messages were asked for just before.

Memory: one worker plays suites of 100 runs of 40 turns, one after another, the caller by script, the agent by script, by
Claude's client (against the local server) and over HTTP; the worker's resident set after each suite.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil

from benchmarks.rig import Rig, rig, save, table
from qa_worker import bootstrap
from qa_worker.application.playing import AgentKind, Target
from qa_worker.application.running import WantedSuite
from qa_worker.domain.agent_under_test import AgentUnderTest, Conversation, Reply, Script
from qa_worker.domain.call import Agent
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.scenario import Limits, Play, Scenario
from qa_worker.domain.suite import SuiteResult
from qa_worker.messages import Queue

_LINES = (
    "I would like to move my appointment from Tuesday morning to some time later this week.",
    "My name is Jordan Miller, born on the fourth of May nineteen eighty two.",
    "Thursday is difficult because of the school run, so what else is there?",
    "Could you say that again, please? The line is not very good here.",
)
_WARM_RUNS, _WARM_TURNS = 64, 8
_BATCH, _MEMORY_TURNS = 100, 40
_SAMPLE = 3
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples fill the unit evenly, and in no order
_KINDS = ["scripted", "claude", "http"]


@dataclass(frozen=True, slots=True)
class Load:
    """What is played: how many scenarios, how many turns each has, how long a message of the model takes.

    `spread`: runs are that much shorter and longer than `turns`, evenly and in no order; 0 is all alike.
    """

    runs: int
    turns: int
    latency_s: float
    spread: float = 0.0

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many turns each run has."""
        shares = ((place * _GOLDEN) % 1 for place in range(self.runs))
        return tuple(max(1, round(self.turns * (1 + self.spread * (2 * share - 1)))) for share in shares)


def scenarios(load: Load) -> tuple[Scenario, ...]:
    """Callers with fixed lines, each a little different."""
    return tuple(
        Scenario(
            id=f"bench-{place}",
            title=f"Bench {place}",
            agent="clinic",
            play=Play.SCRIPT,
            opening=_line(place, 0),
            steps=tuple(_line(place, turn) for turn in range(1, turns)),
            limits=Limits(max_turns=turns, call_s=7200.0),
        )
        for place, turns in enumerate(load.lengths)
    )


def _line(place: int, turn: int) -> str:
    return f"{_LINES[turn % len(_LINES)]} That is {place} dash {turn}."


def an_agent(*, turns: int) -> AgentUnderTest:
    """It can be played by a model, and by a script of as many replies."""
    replies = tuple(Reply(_answer(turn)) for turn in range(turns))
    instructions = "You answer the telephone of a doctors' practice. Verify name and date of birth. " * 12
    return AgentUnderTest(
        Agent("clinic", "Clinic", "1", instructions),
        greeting="Clinic, good morning. How can I help you?",
        script=Script((Conversation(("appointment",), replies),)),
    )


def _answer(turn: int) -> str:
    return f"Let me see what I can do about point {turn}. Is there more?"


class _Answers(BaseHTTPRequestHandler):
    """The agent behind HTTP: another answer each turn, at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer one turn."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"text": _answer(asked["turn"])}).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def http_agent() -> Iterator[Target]:
    """An agent behind HTTP, in a thread of this process."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Target(AgentKind.HTTP, {"url": f"http://127.0.0.1:{server.server_port}/"})
        server.shutdown()


def play(client: bootstrap.Client, load: Load, *, target: Target, max_parallel: int) -> SuiteResult:
    """Play a suite to its end."""
    wanted = WantedSuite(
        name="bench",
        scenarios=scenarios(load),
        agent=an_agent(turns=max(load.lengths)),
        target=target,
        max_parallel=max_parallel,
        judge=JudgeKind.RULES,
    )
    suite_run_id = client.suites.start(wanted, workspace="bench")
    for _ in client.suites.watch(suite_run_id, workspace="bench"):
        pass
    return _complete(client, suite_run_id, load)


def _complete(client: bootstrap.Client, suite_run_id: uuid.UUID, load: Load) -> SuiteResult:
    result = client.suites.result(suite_run_id, workspace="bench")
    # The greeting, then a line and an answer each turn: a run that broke off early would make a fine figure.
    assert result is not None
    whole = {f"bench-{place}": 1 + 2 * turns for place, turns in enumerate(load.lengths)}
    short = [run for run in result.runs if run.turns != whole[run.scenario]]
    if short or len(result.runs) != load.runs:
        raise RuntimeError(f"{len(short)} of {len(result.runs)} runs were not played to their end: {short[:1]}")
    return result


def measure(loads: Sequence[Load], *, slots: int, processes: int) -> list[dict[str, Any]]:
    """Suites on `slots` slots, and a sample of their runs one after another on the same system."""
    claude, latency_s, turns = Target(AgentKind.CLAUDE), loads[0].latency_s, loads[0].turns
    with rig(latency_s=latency_s, extra={"QA_RUN_IN_FLIGHT_LIMIT": str(2 * slots)}) as system:
        client = _started(system, slots=slots, processes=processes)
        play(client, Load(_WARM_RUNS, _WARM_TURNS, latency_s), target=claude, max_parallel=slots)
        sample = play(client, Load(_SAMPLE, turns, latency_s), target=claude, max_parallel=1)
        alone_s = statistics.fmean(run.duration_s or 0.0 for run in sample.runs)
        measured = []
        for load in loads:
            before = system.used()
            suite = play(client, load, target=claude, max_parallel=slots)
            after = system.used()
            measured.append(
                {
                    "slots": slots,
                    "processes": processes,
                    **_compared(load, _wall_s(suite), turn_s=alone_s / turns, slots=slots),
                    "own_durations_s": round(sum(run.duration_s or 0.0 for run in suite.runs), 1),
                    "cpu_s": {part: round(after.cpu_s[part] - before.cpu_s.get(part, 0.0), 2) for part in after.cpu_s},
                    "rss_mb": {part: round(mb) for part, mb in after.rss_mb.items()},
                }
            )
        client.close()
    return measured


def _compared(load: Load, wall_s: float, *, turn_s: float, slots: int) -> dict[str, Any]:
    """A wall time against what a run costs that is alone in the system: `turn_s` seconds a turn."""
    alone = [turn_s * turns for turns in load.lengths]
    floor = max(*alone, sum(alone) / slots)
    # Without a spread: one after the other in each slot.
    waves = math.ceil(load.runs / slots) * max(alone) if not load.spread else None
    return {
        "runs": load.runs,
        "turns": [min(load.lengths), max(load.lengths)],
        "wall_s": round(wall_s, 2),
        "one_after_another_s": round(sum(alone), 1),
        "times_faster": round(sum(alone) / wall_s, 1),
        "floor_s": round(floor, 2),
        "times_floor": round(wall_s / floor, 2),
        "waves_floor_s": None if waves is None else round(waves, 2),
        "times_waves_floor": None if waves is None else round(wall_s / waves, 2),
    }


def memory(target: Target, *, runs: int) -> dict[str, Any]:
    """The resident set of one worker after each hundred of runs of 40 turns."""
    load = Load(_BATCH, _MEMORY_TURNS, 0.0)
    series: list[dict[str, Any]] = []
    with rig(latency_s=0.0) as system:
        client = _started(system, slots=64, processes=1)
        for played in range(_BATCH, runs + 1, _BATCH):
            suite = play(client, load, target=target, max_parallel=64)
            rss = round(system.used().rss_mb["workers"], 1)
            series.append({"runs": played, "rss_mb": rss, "wall_s": round(_wall_s(suite), 1)})
        client.close()
    return {"agent": target.kind.value, "turns": _MEMORY_TURNS, "series": series}


def _started(system: Rig, *, slots: int, processes: int) -> bootstrap.Client:
    for _ in range(processes):
        system.start_worker(Queue.RUN_SCENARIO, concurrency=slots // processes)
    system.start_worker(Queue.MAINTENANCE)
    system.start_beat()
    return system.client()


def _wall_s(suite: SuiteResult) -> float:
    assert suite.started_at is not None
    assert suite.completed_at is not None
    return (suite.completed_at - suite.started_at).total_seconds()


def _row(result: dict[str, Any]) -> list[str]:
    return [
        _named(result),
        f"{result['wall_s']:.1f}",
        f"{result['one_after_another_s']:.0f}",
        f"{result['times_faster']:.1f}",
        f"{result['floor_s']:.1f}",
        f"{result['times_floor']:.2f}",
        _figure(result["waves_floor_s"]),
        _figure(result["times_waves_floor"], digits=2),
        f"{result['cpu_s']['workers']:.1f}",
    ]


def _named(result: dict[str, Any]) -> str:
    shortest, longest = result["turns"]
    turns = str(longest) if shortest == longest else f"{shortest}-{longest}"
    processes = f"{result['processes']} process{'es' if result['processes'] > 1 else ''}"
    return f"{result['runs']} runs of {turns} turns, {result['slots']} slots, {processes}"


def _figure(value: float | None, *, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_HEAD = ["", "wall s", "in turn s", "faster", "floor s", "x floor", "waves s", "x waves", "worker CPU s"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, nargs="*", default=[100, 128], help="of the same length, a suite each")
    parser.add_argument(
        "--spread", type=float, default=0.5, help="of a further suite as long as the last; 0 leaves it out"
    )
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.5, help="of the local Messages API, in seconds")
    parser.add_argument("--slots", type=int, default=64, help="over all processes")
    parser.add_argument(
        "--processes", type=int, nargs="*", default=[1, 2], help="worker processes that share the slots"
    )
    parser.add_argument("--memory-runs", type=int, default=500, help="in steps of 100; 0 leaves memory out")
    parser.add_argument("--memory-kinds", nargs="*", default=_KINDS, choices=_KINDS, help="what plays the agent")
    options = parser.parse_args()
    loads = [Load(runs, options.turns, options.latency) for runs in options.runs]
    if loads and options.spread:
        loads.append(replace(loads[-1], spread=options.spread))
    results = [
        result
        for processes in (options.processes if loads else ())
        for result in measure(loads, slots=options.slots, processes=processes)
    ]
    if results:
        print(f"{options.latency} s a message")
        print(table(_HEAD, [_row(result) for result in results]))
    kept = [_kept(kind, options.memory_runs) for kind in options.memory_kinds if options.memory_runs >= _BATCH]
    known = {
        "cores": psutil.cpu_count(),
        "python": sys.version.split()[0],
        "load": [options.runs, options.spread, options.turns, options.latency],
    }
    save("scenarios", {**known, "time": results, "memory": kept})


def _kept(kind: str, runs: int) -> dict[str, Any]:
    with http_agent() if kind == AgentKind.HTTP else nullcontext(Target(AgentKind(kind))) as target:
        kept = memory(target, runs=runs)
    print(f"\nOne worker, runs of {_MEMORY_TURNS} turns, the agent is {kind}")
    rows = [[str(step["runs"]), f"{step['rss_mb']:.1f}", f"{step['wall_s']:.1f}"] for step in kept["series"]]
    print(table(["runs", "MB", "s for the last 100"], rows))
    return kept


if __name__ == "__main__":
    main()
