"""One workspace has 10,000 calls waiting; another one's live call comes in. How long does that one take?

As a ratio to what it takes when nothing else is to be done. The waiting calls are a backlog, or live calls themselves;
and the limits are far away, or are what everything waits for. In the case `producer` both workspaces have stored their
calls themselves and announce them with messages: A all of its own at once, just before B announces one.

python -m benchmarks.fairness [--queued 10000] [--calls 20] [--cases backlog live limited-backlog limited-live producer]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.latency import graded_in_s
from benchmarks.rig import NO_LIMITS, Rig, a_call, rig, save, table, wait_for
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.application.ports import Added, Wanted
from qa_worker.domain.call import CallId
from qa_worker.domain.prompt import PROMPT_VERSION
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Queue
from qa_worker.producer import Producer

LATENCY_S = 1.0
_SETTLED_S = 8.0
_BETWEEN_S = 0.3
_DONE = text("SELECT count(*) FROM evaluations WHERE call_id = :id AND state = 'done'")


@dataclass(frozen=True)
class Case:
    """The lane of what waits, and the provider's limits."""

    lane: Lane
    limits: str
    announced: bool = False


CASES = {
    "backlog": Case(Lane.BACKLOG, NO_LIMITS),
    "live": Case(Lane.LIVE, NO_LIMITS),
    "limited-backlog": Case(Lane.BACKLOG, "1000,2000000,400000"),
    "limited-live": Case(Lane.LIVE, "1000,2000000,400000"),
    "producer": Case(Lane.LIVE, NO_LIMITS, announced=True),
}


def measure(case: Case, *, queued: int, calls: int, processes: int) -> dict[str, Any]:
    """Single live calls of B, first alone and then beside all that A has."""
    with rig(latency_s=LATENCY_S, limits=case.limits) as system:
        for _ in range(processes):
            system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        client, producer = system.client(), Producer(system.broker_url)
        engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:

            def one_of_b(number: int) -> float:
                if case.announced:
                    return _announced_in_s(system, producer, connection, number)
                return graded_in_s(client, connection, a_call(number), workspace="b")

            def of_b(count: int, start: int) -> list[float]:
                took: list[float] = []
                for number in range(start, start + count):
                    took.append(one_of_b(number))
                    time.sleep(_BETWEEN_S)
                return took

            of_b(2, 0)
            alone_s = statistics.median(of_b(10, 10))
            if case.announced:
                producer.calls_finished(_stored(system, range(queued), workspace="a"))
            else:
                system.pause_beat()
                wanted = Wanted(judge=JudgeKind.CLAUDE, lane=case.lane)
                system.submit([a_call(number) for number in range(queued)], wanted=wanted, workspace="a")
                system.resume_beat()
                time.sleep(_SETTLED_S)
            waiting = [system.counts().get("pending", 0)]
            ratios = sorted(took / alone_s for took in of_b(calls, 100))
            waiting.append(system.counts().get("pending", 0))
        engine.dispose()
        producer.close()
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


def _stored(system: Rig, numbers: Iterable[int], *, workspace: str) -> list[CallId]:
    """Calls that nobody has asked about yet, as a backend writes them."""
    engine = create_engine(system.database_url)
    calls = [a_call(number) for number in numbers]
    with PostgresUnitOfWork(engine, send=_nothing, prompt_version=PROMPT_VERSION) as work:
        added = work.calls.add_all(calls, workspace_name=workspace)
        work.commit()
    engine.dispose()
    return [one.key.id for one in added if isinstance(one, Added)]


def _nothing(batch: object) -> None:
    assert not batch


def _announced_in_s(system: Rig, producer: Producer, connection: Connection, number: int) -> float:
    """Seconds from the message about a stored live call of B to its evaluation."""
    (call_id,) = _stored(system, [number], workspace="b")
    started = time.monotonic()
    producer.call_finished(call_id)
    wait_for(lambda: connection.execute(_DONE, {"id": call_id}).scalar_one(), what=f"call {number} of B")
    return time.monotonic() - started


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
