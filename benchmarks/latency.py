"""What the system adds to a judge's time when it is idle: from handing a call over to its stored evaluation.

Calls come one by one, through the real producer, broker and worker. The judge's time is the local server's and is taken
off. The first calls (connections, caches) are left out.

python -m benchmarks.latency [--calls 100] [--judge 0.2]
"""

from __future__ import annotations

import argparse
import statistics
import time
import uuid
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.rig import a_call, rig, save, table
from qa_worker import bootstrap
from qa_worker.application.ports import Wanted
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.call import Call
from qa_worker.domain.rubric import JudgeKind
from qa_worker.messages import Queue

WARM_UP = 5
_BETWEEN_S = 0.1
_LOOK_EVERY_S = 0.002
_STATE = text("SELECT state FROM evaluations WHERE id = :id")


def graded_in_s(client: bootstrap.Client, connection: Connection, call: Call, *, workspace: str) -> float:
    """Seconds from handing a live call over to its stored evaluation."""
    started = time.monotonic()
    (answer,) = client.submit([call], workspace=workspace, wanted=Wanted(judge=JudgeKind.CLAUDE))
    assert isinstance(answer, Accepted)
    wait_until_done(connection, answer.evaluation_id, within_s=120)
    return time.monotonic() - started


def wait_until_done(connection: Connection, evaluation_id: uuid.UUID, *, within_s: float) -> None:
    """Look often: what is looked for takes milliseconds."""
    deadline = time.monotonic() + within_s
    while connection.execute(_STATE, {"id": evaluation_id}).scalar_one() != "done":
        if time.monotonic() > deadline:
            raise TimeoutError(str(evaluation_id))
        time.sleep(_LOOK_EVERY_S)


def measure(*, calls: int, judge_s: float) -> dict[str, Any]:
    """One worker process with default settings."""
    with rig(latency_s=judge_s) as system:
        system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        client = system.client()
        engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            added: list[float] = []
            for number in range(WARM_UP + calls):
                took_s = graded_in_s(client, connection, a_call(number), workspace="bench")
                added.append(1000 * (took_s - judge_s))
                time.sleep(_BETWEEN_S)
        engine.dispose()
        client.close()
    added = sorted(added[WARM_UP:])
    return {
        "calls": calls,
        "judge_s": judge_s,
        "added_ms": {
            "median": round(statistics.median(added), 1),
            "p95": round(added[int(0.95 * (len(added) - 1))], 1),
            "worst": round(added[-1], 1),
        },
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--judge", type=float, default=0.2, help="seconds that the judge takes")
    options = parser.parse_args()
    result = measure(calls=options.calls, judge_s=options.judge)
    rows = [[name, f"{value:.1f} ms"] for name, value in result["added_ms"].items()]
    print(table(["added to the judge's time", ""], rows))
    save("latency", result)


if __name__ == "__main__":
    main()
