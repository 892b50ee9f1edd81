"""Evaluations a second through the real pipeline, against the same requests on the bare SDK, in the same run.

python -m benchmarks.throughput [--calls 4000] [--latency 1.0] [--only NAME]

The pipeline: claim, evidence, limiter, judge over HTTP to a local server, verdict, record. Calls are stored before the
clock starts; it runs from the first claim to the last stored result, by the database's own times. The limiter is warm:
some hundred calls were graded just before, because the ramp of its first seconds is a promise to the provider.
The baseline: `asyncio.gather` over the SDK's client on aiohttp behind a semaphore; answers are read and thrown away.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil
from sqlalchemy import create_engine, text

from benchmarks.rig import Rig, Used, a_call, rig, save, table, wait_for
from qa_worker.application.ports import Wanted
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Queue

_WARM = 600


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run the pipeline. `slots` are the threads of each worker process."""

    name: str
    processes: int
    slots: int
    in_flight: int
    workspaces: int
    lane: Lane


CASES = (
    # Many workspaces, each within its share of the limit: every call is a message of its own.
    Case("one message a call, 1 process", 1, 250, 500, 16, Lane.LIVE),
    Case("one message a call, 2 processes", 2, 250, 1000, 16, Lane.LIVE),
    Case("bulk lane, 1 process", 1, 24, 1600, 1, Lane.BACKLOG),
    Case("bulk lane, 2 processes", 2, 24, 2400, 1, Lane.BACKLOG),
)
_TIMES = text(
    "SELECT extract(epoch FROM max(evaluated_at) - min(started_at)), count(*) FILTER (WHERE verdict IS NOT NULL), "
    "count(*) FILTER (WHERE attempt > 1 OR park_count > 0) FROM evaluations WHERE lane = :lane AND created_at > :since"
)


def pipeline(case: Case, *, calls: int, latency_s: float) -> dict[str, Any]:
    """Grade `calls` calls; what it took."""
    extra = {
        "QA_EVALUATE_CONCURRENCY": str(case.slots),
        "QA_IN_FLIGHT_LIMIT": str(case.in_flight),
        "QA_DISPATCH_EVERY_S": "0.5",
    }
    with rig(latency_s=latency_s, extra=extra) as system:
        for _ in range(case.processes):
            system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        system.submit([a_call(-number) for number in range(1, _WARM + 1)])
        wait_for(lambda: system.counts().get("done", 0) >= _WARM, what="the limiter is warm")
        system.pause_beat()
        since = _now(system)
        submitted_s = _submit(system, case, calls)
        before = system.used()
        system.resume_beat()
        wait_for(lambda: system.counts().get("done", 0) >= calls + _WARM, what="all are done", within_s=900)
        return {
            "case": case.name,
            "calls": calls,
            **_took(system, case, since, calls),
            **_cost(before, system.used(), calls),
            "stored_per_s": round(calls / submitted_s),
        }


def baseline(*, calls: int, latency_s: float, in_flight: int) -> dict[str, Any]:
    """The same requests on the bare SDK, in a process of its own."""
    with rig(latency_s=latency_s) as system:
        before = system.used()
        arguments = [sys.executable, "-m", "benchmarks.bare_sdk", str(calls), str(in_flight)]
        ran = subprocess.run(arguments, env=system.env, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, Any] = json.loads(ran.stdout)
        api = system.used().cpu_s["api"] - before.cpu_s["api"]
    return {
        "case": f"bare SDK, {in_flight} at once",
        "calls": calls,
        "wall_s": round(found["wall_s"], 2),
        "evaluations_per_s": round(calls / found["wall_s"], 1),
        "cpu_ms": {"workers": round(1000 * found["cpu_s"] / calls, 2), "api": round(1000 * api / calls, 2)},
        "rss_mb": {"workers": round(found["rss_mb"])},
    }


def _submit(system: Rig, case: Case, calls: int) -> float:
    """Store the calls, sending nothing: the dispatcher will. Seconds it took."""
    # What can wait is left to the dispatcher, which is paused: so nothing leaves while calls are stored.
    wanted = Wanted(judge=JudgeKind.CLAUDE, lane=Lane.BACKLOG)
    started = time.monotonic()
    for number in range(case.workspaces):
        batch = [a_call(place) for place in range(number, calls, case.workspaces)]
        system.submit(batch, wanted=wanted, workspace=f"bench-{number}")
    took_s = time.monotonic() - started
    _execute(system, "UPDATE evaluations SET lane = :lane WHERE state = 'pending'", lane=case.lane.value)
    return took_s


def _execute(system: Rig, statement: str, **values: Any) -> None:
    engine = create_engine(system.database_url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


def _now(system: Rig) -> Any:
    engine = create_engine(system.database_url)
    with engine.connect() as connection:
        now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    engine.dispose()
    return now


def _took(system: Rig, case: Case, since: Any, calls: int) -> dict[str, Any]:
    engine = create_engine(system.database_url)
    with engine.connect() as connection:
        wall_s, graded, again = connection.execute(_TIMES, {"lane": case.lane.value, "since": since}).one()
    engine.dispose()
    if graded != calls:
        raise RuntimeError(f"{graded} of {calls} were graded")
    rate = round(calls / float(wall_s), 1)
    return {"wall_s": round(float(wall_s), 2), "evaluations_per_s": rate, "claimed_again": again}


def _cost(before: Used, after: Used, calls: int) -> dict[str, Any]:
    cpu = {part: 1000 * (after.cpu_s[part] - before.cpu_s.get(part, 0.0)) / calls for part in after.cpu_s}
    return {
        "cpu_ms": {part: round(ms, 2) for part, ms in cpu.items()},
        "rss_mb": {part: round(mb) for part, mb in after.rss_mb.items()},
    }


def _row(result: dict[str, Any]) -> list[str]:
    cpu, memory = result["cpu_ms"], result["rss_mb"]
    return [
        result["case"],
        f"{result['evaluations_per_s']:.0f}",
        *(
            f"{cpu[part]:.2f}" if part in cpu else ""
            for part in ("workers", "api", "database", "broker", "maintenance")
        ),
        str(memory["workers"]),
        str(result.get("claimed_again", "")),
    ]


_HEAD = ["", "evals/s", "workers", "server", "database", "broker", "maintenance", "MB a worker", "claimed again"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--latency", type=float, default=1.0, help="of the local Messages API, in seconds")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    results = [
        baseline(calls=options.calls, latency_s=options.latency, in_flight=in_flight)
        for in_flight in (200, 400)
        if options.only in "bare SDK"
    ]
    chosen = [case for case in CASES if options.only in case.name]
    results += [pipeline(case, calls=options.calls, latency_s=options.latency) for case in chosen]
    print("CPU in ms an evaluation, by part")
    print(table(_HEAD, [_row(result) for result in results]))
    save("throughput", {"cores": psutil.cpu_count(), "python": sys.version.split()[0], "results": results})


if __name__ == "__main__":
    main()
