"""How much of the provider's limits is used, and how often they are hit: real workers that don't know them beforehand.

The local server enforces token buckets with the real headers. A backlog larger than the limits is submitted, then two
worker processes, the dispatcher and beat start with nothing learnt. What is reported is a steady window after the ramp
(the first answers take their time to tell the limits), and the whole run from the first request on.

python -m benchmarks.limits [--cases start build scale] [--window 180] [--processes 2] [--lane backlog]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.rig import Rig, Used, a_call, rig, save, wait_for
from qa_worker.application.ports import Wanted
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Queue

_SPARE = 1.1


@dataclass(frozen=True)
class Case:
    """Limits a minute, what an answer takes, how long the ramp is, and the limit of work in flight.

    Three quarters of that are for a backlog; rate x (latency + 3 s) is what is needed.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    latency_s: float
    ramp_s: int
    in_flight_limit: int

    @property
    def limits(self) -> tuple[int, int, int]:
        """Of requests, input tokens, output tokens."""
        return self.requests, self.input_tokens, self.output_tokens


CASES = {
    "start": Case(1_000, 2_000_000, 400_000, latency_s=1.0, ramp_s=15, in_flight_limit=256),
    "build": Case(5_000, 5_000_000, 1_000_000, latency_s=1.0, ramp_s=15, in_flight_limit=600),
    "scale": Case(10_000, 100_000_000, 20_000_000, latency_s=5.0, ramp_s=30, in_flight_limit=2_000),
}


@dataclass(frozen=True)
class Moment:
    """What had been done and used at one time."""

    used: Used
    done: int


def measure(case: Case, *, window_s: int, processes: int, lane: Lane) -> dict[str, Any]:
    """One case, from a cold start."""
    ramp_s = case.ramp_s
    extra = {"QA_IN_FLIGHT_LIMIT": str(case.in_flight_limit)}
    limits = ",".join(map(str, case.limits))
    with rig(latency_s=case.latency_s, limits=limits, extra=extra) as system:
        calls = int(_SPARE * case.requests / 60 * (ramp_s + window_s + 10))
        system.submit([a_call(number) for number in range(calls)], wanted=Wanted(judge=JudgeKind.CLAUDE, lane=lane))
        for _ in range(processes):
            system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        wait_for(lambda: system.stats()["requests"] > 0, what="the first request")
        first = time.monotonic()
        time.sleep(ramp_s)
        begun = Moment(system.used(), system.counts().get("done", 0))
        time.sleep(max(0.0, first + ramp_s + window_s - time.monotonic()))
        ended = Moment(system.used(), system.counts().get("done", 0))
        stats = system.stats()
        parked = parkings(system)
    seconds = {int(second): counts for second, counts in stats["per_second"].items()}
    done = max(1, ended.done - begun.done)
    return {
        "case": asdict(case),
        "processes": processes,
        "lane": lane.value,
        "window_s": window_s,
        "used_in_window": used_of_limits(seconds, ramp_s, ramp_s + window_s, case),
        "used_in_whole_run": used_of_limits(seconds, 0, ramp_s + window_s, case),
        "requests": stats["requests"],
        "refused_percent": round(100 * stats["served"].get("limit_reached", 0) / max(1, stats["requests"]), 3),
        "evaluations_done": ended.done,
        "cpu_ms_per_evaluation": {
            part: round(1000 * (ended.used.cpu_s[part] - begun.used.cpu_s.get(part, 0.0)) / done, 2)
            for part in ended.used.cpu_s
        },
        "parked_per_evaluation": round(parked / max(1, ended.done), 4),
        "max_in_flight": stats["max_in_flight"],
    }


def used_of_limits(seconds: dict[int, dict[str, int]], start: int, end: int, case: Case) -> dict[str, float]:
    """Percent of each limit that was used from second `start` to `end`; cached reads don't count for input."""
    counted = {
        "requests": ("answer",),
        "input_tokens": ("input_tokens", "cache_creation_input_tokens"),
        "output_tokens": ("output_tokens",),
    }
    percents: dict[str, float] = {}
    for (meter, names), limit in zip(counted.items(), case.limits, strict=True):
        used = sum(seconds.get(second, {}).get(name, 0) for second in range(start, end) for name in names)
        percents[meter] = round(100 * used / (limit * (end - start) / 60), 2)
    return percents


def parkings(system: Rig) -> int:
    """How often work was claimed and put back."""
    engine = create_engine(system.database_url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM attempts WHERE result = 'parked'")).scalar_one()
    engine.dispose()
    return int(found)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--window", type=int, default=180)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--lane", choices=[Lane.LIVE.value, Lane.BACKLOG.value], default=Lane.BACKLOG.value)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    print(f"{'case':8} {'in window':>10} {'whole run':>10} {'429s':>8} {'CPU ms':>7} {'parked':>7} {'in flight':>10}")
    for name in options.cases:
        result = measure(
            CASES[name],
            window_s=options.window,
            processes=options.processes,
            lane=Lane(options.lane),
        )
        results[name] = result
        window, whole = max(result["used_in_window"].values()), max(result["used_in_whole_run"].values())
        cpu = result["cpu_ms_per_evaluation"]["workers"]
        print(
            f"{name:8} {window:9.1f}% {whole:9.1f}% {result['refused_percent']:7.2f}% {cpu:7.2f} "
            f"{result['parked_per_evaluation']:7.3f} {result['max_in_flight']:10}",
            flush=True,
        )
    save("limits", results)


if __name__ == "__main__":
    main()
