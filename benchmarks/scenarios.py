"""Suites of scenarios: wall time against one run after another and against the floor, and the memory of a worker.

python -m benchmarks.scenarios [--runs 100] [--turns 20] [--latency 0.5] [--processes 1 2] [--memory-runs 500]

Time: the agent is played by Claude (a local server that takes `--latency` for each message), the caller by fixed lines, the
judge by rules. A turn is the caller's line with the agent's answer, so one run asks the model `--turns` times. The wall
time is the suite's own, by the database's clock: from its creation to the end of its last run. `one after another` is a
measured sample of runs that were alone in the system, times the number of runs. The floor is what no schedule on as many
slots can go below: the longest run, or all work divided by the slots; runs of the same length go in whole waves, so theirs
is shown, too. The limiter is warm: some hundred messages were asked for just before.

Memory: one worker plays suites of 100 runs of 40 turns, one after another, agent and caller by script; its resident set
after each.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import uuid
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Load:
    """What is played: how many scenarios, how many turns each has, how long a message of the model takes."""

    runs: int
    turns: int
    latency_s: float


def scenarios(number: int, *, turns: int) -> tuple[Scenario, ...]:
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
        for place in range(number)
    )


def _line(place: int, turn: int) -> str:
    return f"{_LINES[turn % len(_LINES)]} That is {place} dash {turn}."


def an_agent(*, turns: int) -> AgentUnderTest:
    """It can be played by a model, and by a script of as many replies."""
    replies = tuple(Reply(f"Let me see what I can do about point {turn}. Is there more?") for turn in range(turns))
    instructions = "You answer the telephone of a doctors' practice. Verify name and date of birth. " * 12
    return AgentUnderTest(
        Agent("clinic", "Clinic", "1", instructions),
        greeting="Clinic, good morning. How can I help you?",
        script=Script((Conversation(("appointment",), replies),)),
    )


def play(client: bootstrap.Client, load: Load, *, kind: AgentKind, max_parallel: int) -> SuiteResult:
    """Play a suite to its end."""
    wanted = WantedSuite(
        name="bench",
        scenarios=scenarios(load.runs, turns=load.turns),
        agent=an_agent(turns=load.turns),
        target=Target(kind),
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
    short = [run for run in result.runs if run.turns != 1 + 2 * load.turns]
    if short or len(result.runs) != load.runs:
        raise RuntimeError(f"{len(short)} of {len(result.runs)} runs were not played to their end: {short[:1]}")
    return result


def measure(load: Load, *, slots: int, processes: int) -> dict[str, Any]:
    """One suite on `slots` slots, and a sample of its runs one after another on the same system."""
    with rig(latency_s=load.latency_s, extra={"QA_RUN_IN_FLIGHT_LIMIT": str(2 * slots)}) as system:
        client = _started(system, slots=slots, processes=processes)
        play(client, Load(_WARM_RUNS, _WARM_TURNS, load.latency_s), kind=AgentKind.CLAUDE, max_parallel=slots)
        sample = play(client, Load(_SAMPLE, load.turns, load.latency_s), kind=AgentKind.CLAUDE, max_parallel=1)
        before = system.used()
        suite = play(client, load, kind=AgentKind.CLAUDE, max_parallel=slots)
        after = system.used()
        client.close()
    alone = [run.duration_s or 0.0 for run in sample.runs]
    cpu = {part: round(after.cpu_s[part] - before.cpu_s.get(part, 0.0), 2) for part in after.cpu_s}
    return {
        "slots": slots,
        "processes": processes,
        **_compared(load, _wall_s(suite), alone_s=statistics.fmean(alone), longest_s=max(alone), slots=slots),
        "own_durations_s": round(sum(run.duration_s or 0.0 for run in suite.runs), 1),
        "cpu_s": cpu,
        "rss_mb": {part: round(mb) for part, mb in after.rss_mb.items()},
    }


def _compared(load: Load, wall_s: float, *, alone_s: float, longest_s: float, slots: int) -> dict[str, Any]:
    one_by_one = alone_s * load.runs
    floor = max(longest_s, one_by_one / slots)
    waves = math.ceil(load.runs / slots) * alone_s
    return {
        "wall_s": round(wall_s, 2),
        "run_alone_s": round(alone_s, 2),
        "one_after_another_s": round(one_by_one, 1),
        "times_faster": round(one_by_one / wall_s, 1),
        "floor_s": round(floor, 2),
        "times_floor": round(wall_s / floor, 2),
        "waves_floor_s": round(waves, 2),
        "times_waves_floor": round(wall_s / waves, 2),
    }


def memory(*, runs: int) -> dict[str, Any]:
    """The resident set of one worker after each hundred of runs of 40 turns."""
    load = Load(_BATCH, _MEMORY_TURNS, 0.0)
    series: list[dict[str, Any]] = []
    with rig(latency_s=0.0) as system:
        client = _started(system, slots=64, processes=1)
        for played in range(_BATCH, runs + 1, _BATCH):
            suite = play(client, load, kind=AgentKind.SCRIPTED, max_parallel=64)
            rss = round(system.used().rss_mb["workers"], 1)
            series.append({"runs": played, "rss_mb": rss, "wall_s": round(_wall_s(suite), 1)})
        client.close()
    return {"turns": _MEMORY_TURNS, "series": series}


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
        f"{result['slots']} slots, {result['processes']} process{'es' if result['processes'] > 1 else ''}",
        f"{result['wall_s']:.1f}",
        f"{result['one_after_another_s']:.0f}",
        f"{result['times_faster']:.1f}",
        f"{result['floor_s']:.1f}",
        f"{result['times_floor']:.2f}",
        f"{result['waves_floor_s']:.1f}",
        f"{result['times_waves_floor']:.2f}",
        f"{result['cpu_s']['workers']:.1f}",
    ]


_HEAD = ["", "wall s", "in turn s", "faster", "floor s", "x floor", "waves s", "x waves", "worker CPU s"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.5, help="of the local Messages API, in seconds")
    parser.add_argument("--slots", type=int, default=64, help="over all processes")
    parser.add_argument(
        "--processes", type=int, nargs="*", default=[1, 2], help="worker processes that share the slots"
    )
    parser.add_argument("--memory-runs", type=int, default=500, help="in steps of 100; 0 leaves memory out")
    options = parser.parse_args()
    load = Load(options.runs, options.turns, options.latency)
    results = [measure(load, slots=options.slots, processes=processes) for processes in options.processes]
    if results:
        print(f"{load.runs} scenarios of {load.turns} turns, {load.latency_s} s a message")
        print(table(_HEAD, [_row(result) for result in results]))
    kept = memory(runs=options.memory_runs) if options.memory_runs >= _BATCH else None
    if kept is not None:
        print(f"\nOne worker, runs of {_MEMORY_TURNS} turns")
        rows = [[str(step["runs"]), f"{step['rss_mb']:.1f}", f"{step['wall_s']:.1f}"] for step in kept["series"]]
        print(table(["runs", "MB", "s for the last 100"], rows))
    known = {
        "cores": psutil.cpu_count(),
        "python": sys.version.split()[0],
        "load": [load.runs, load.turns, load.latency_s],
    }
    save("scenarios", {**known, "time": results, "memory": kept})


if __name__ == "__main__":
    main()
