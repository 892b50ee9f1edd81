"""Our pipeline on the same calls with the same number at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.rig import Rig, a_call, rig, wait_for
from qa_worker.application.ports import Wanted
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Queue

_WARM = 600
_WORKSPACES = 16
_STATES = text("SELECT state, count(*) FROM evaluations GROUP BY state")
_NOW = text("SELECT clock_timestamp()")
_TOOK = text(
    "SELECT extract(epoch FROM max(evaluated_at) - min(started_at)), count(*) FILTER (WHERE verdict IS NOT NULL) "
    "FROM evaluations WHERE started_at > :since"
)


@contextmanager
def running(*, at_once: int, latency_s: float) -> Iterator[Rig]:
    """One worker process of `at_once` slots and a dispatcher, with the limiter past its ramp, and beat at rest."""
    extra = {
        "QA_EVALUATE_CONCURRENCY": str(at_once),
        # A quarter of it is never for the backlog.
        "QA_IN_FLIGHT_LIMIT": str(at_once * 4 // 3),
        "QA_DISPATCH_EVERY_S": "0.25",
    }
    # Of this process, which only stores calls: the dispatcher sends them.
    os.environ["QA_IN_FLIGHT_LIMIT"] = "1"
    with rig(latency_s=latency_s, extra=extra) as system:
        system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        _store(system, _WARM, Lane.LIVE)
        wait_for(lambda: system.counts().get("done", 0) >= _WARM, what="the limiter is warm")
        system.pause_beat()
        yield system


def graded(system: Rig, lane: Lane, *, calls: int) -> dict[str, Any]:
    """What grading this many calls took, from the first claim on. CPU is that of all parts but the local server."""
    _store(system, calls, lane)
    engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # The limit of this process lets a live call go when none is under way: those few aren't measured.
        wait_for(lambda: not {"queued", "running"} & _states(connection).keys(), what="nothing is under way")
        waiting = _states(connection)["pending"]
        since = connection.execute(_NOW).scalar_one()
        system.control({"reset": True})
        before = system.used().cpu_s
        system.resume_beat()
        wait_for(lambda: system.stats()["requests"] > 0, what="the first request")
        wait_for(lambda: _states(connection).keys() == {"done"}, what="all are graded", within_s=900)
        after = system.used()
        wall_s, with_verdict = connection.execute(_TOOK, {"since": since}).one()
    engine.dispose()
    system.pause_beat()
    if with_verdict != waiting:
        raise RuntimeError(f"{with_verdict} of {waiting} were graded")
    parts = {
        part: round(1000 * (cpu - before[part]) / waiting, 2) for part, cpu in after.cpu_s.items() if part != "api"
    }
    stats = system.stats()
    return {
        "graded": waiting,
        "llm_calls": stats["requests"],
        "in_flight": stats["max_in_flight"],
        "wall_s": round(float(wall_s), 2),
        "evaluations_per_s": round(waiting / float(wall_s), 1),
        "cpu_ms": round(sum(parts.values()), 2),
        "cpu_ms_by_part": parts,
        "rss_mb": round(after.rss_mb["workers"]),
    }


def _store(system: Rig, calls: int, lane: Lane) -> None:
    """Over several workspaces, because none gets all of the room for its live calls."""
    wanted = Wanted(judge=JudgeKind.CLAUDE, lane=lane)
    workspaces = _WORKSPACES if lane is Lane.LIVE else 1
    for number in range(workspaces):
        batch = [a_call(place) for place in range(number, calls, workspaces)]
        system.submit(batch, wanted=wanted, workspace=f"{lane.value}-{number}-{calls}")


def _states(connection: Connection) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(_STATES)}
