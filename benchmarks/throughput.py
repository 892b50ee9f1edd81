"""Evaluations a second through the real pipeline: claim, evidence, limiter, judge over HTTP to a local server, verdict, record.

python -m benchmarks.throughput [--calls 4000] [--processes 1 2] [--latency 1.0]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.rig import a_call, rig, save, wait_for
from qa_worker.messages import Queue


def pipeline(*, calls: int, processes: int, latency_s: float, concurrency: int) -> dict[str, Any]:
    """Submit first, then start the clock with the workers ready."""
    extra = {
        "QA_EVALUATE_CONCURRENCY": str(concurrency),
        "QA_IN_FLIGHT_LIMIT": str(2 * concurrency * processes),
        "QA_DISPATCH_EVERY_S": "0.5",
    }
    with rig(latency_s=latency_s, extra=extra) as system:
        for _ in range(processes):
            system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        time.sleep(3)
        before = system.used()
        started = time.monotonic()
        system.submit([a_call(number) for number in range(calls)])
        submitted_s = time.monotonic() - started
        wait_for(lambda: system.counts().get("done", 0) >= calls, what="all are done", within_s=900)
        wall_s = time.monotonic() - started
        after = system.used()
        cpu = {part: 1000 * (after.cpu_s[part] - before.cpu_s.get(part, 0.0)) / calls for part in after.cpu_s}
        return {
            "calls": calls,
            "processes": processes,
            "concurrency": concurrency,
            "submitted_s": round(submitted_s, 2),
            "wall_s": round(wall_s, 2),
            "evaluations_per_s": round(calls / wall_s, 1),
            "cpu_ms_per_evaluation": {part: round(ms, 2) for part, ms in cpu.items()},
            "rss_mb": {part: round(mb) for part, mb in after.rss_mb.items()},
        }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--concurrency", type=int, default=200)
    options = parser.parse_args()
    results = [
        pipeline(calls=options.calls, processes=n, latency_s=options.latency, concurrency=options.concurrency)
        for n in options.processes
    ]
    for result in results:
        print(result)
    save("throughput", {"pipeline": results})


if __name__ == "__main__":
    main()
