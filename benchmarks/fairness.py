"""One workspace has 10,000 calls waiting; another one's live call comes in. How long does that one take?

As a ratio to what it takes when nothing else is to be done. The waiting calls are a backlog, or live calls themselves;
and the limits are far away, or are what everything waits for.

python -m benchmarks.fairness [--queued 10000] [--calls 20] [--cases backlog live limited-backlog limited-live]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine

from benchmarks.latency import graded_in_s
from benchmarks.rig import NO_LIMITS, a_call, rig, save, table
from qa_worker.application.ports import Wanted
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Queue

LATENCY_S = 1.0
_SETTLED_S = 8.0
_BETWEEN_S = 0.3


@dataclass(frozen=True)
class Case:
    """The lane of what waits, and the provider's limits."""

    lane: Lane
    limits: str


CASES = {
    "backlog": Case(Lane.BACKLOG, NO_LIMITS),
    "live": Case(Lane.LIVE, NO_LIMITS),
    "limited-backlog": Case(Lane.BACKLOG, "1000,2000000,400000"),
    "limited-live": Case(Lane.LIVE, "1000,2000000,400000"),
}


def measure(case: Case, *, queued: int, calls: int, processes: int) -> dict[str, Any]:
    """Single live calls of B, first alone and then beside all that A has."""
    with rig(latency_s=LATENCY_S, limits=case.limits) as system:
        for _ in range(processes):
            system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        client = system.client()
        engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:

            def of_b(count: int, start: int) -> list[float]:
                took: list[float] = []
                for number in range(start, start + count):
                    took.append(graded_in_s(client, connection, a_call(number), workspace="b"))
                    time.sleep(_BETWEEN_S)
                return took

            of_b(2, 0)
            alone_s = statistics.median(of_b(10, 10))
            system.pause_beat()
            wanted = Wanted(judge=JudgeKind.CLAUDE, lane=case.lane)
            system.submit([a_call(number) for number in range(queued)], wanted=wanted, workspace="a")
            system.resume_beat()
            time.sleep(_SETTLED_S)
            waiting = [system.counts().get("pending", 0)]
            ratios = sorted(took / alone_s for took in of_b(calls, 100))
            waiting.append(system.counts().get("pending", 0))
        engine.dispose()
        client.close()
    return {
        "lane": case.lane.value,
        "limits": case.limits,
        "queued": queued,
        "waiting_from_to": waiting,
        "alone_s": round(alone_s, 3),
        "median_ratio": round(statistics.median(ratios), 2),
        "worst_ratio": round(ratios[-1], 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.cases:
        results[name] = measure(CASES[name], queued=options.queued, calls=options.calls, processes=options.processes)
    rows = [
        [
            name,
            f"{r['alone_s']:.2f} s",
            f"{r['median_ratio']:.2f}x",
            f"{r['worst_ratio']:.2f}x",
            str(r["waiting_from_to"][-1]),
        ]
        for name, r in results.items()
    ]
    print(table(["waiting of A", "B alone", "median", "worst", "A still has"], rows))
    save("fairness", results)


if __name__ == "__main__":
    main()
