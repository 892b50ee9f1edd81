"""Calls accepted a second by the producer: one message each, pipelined, and fifty to a message.

python -m benchmarks.enqueue [--calls 20000]

The baseline of the same run is what a backend would write without it: Celery's `send_task`, one by one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from celery import Celery

from benchmarks.rig import save, table
from qa_worker.embedded.stack import remove, servers
from qa_worker.messages import Queue, TaskName
from qa_worker.producer import Producer


def measured(send: Callable[[Sequence[uuid.UUID]], object], calls: int) -> tuple[float, float]:
    """Calls a second, and CPU ms of the producer for each."""
    ids = [uuid.uuid4() for _ in range(calls)]
    send(ids[:10])
    started, cpu = time.perf_counter(), time.process_time()
    send(ids)
    return calls / (time.perf_counter() - started), 1000 * (time.process_time() - cpu) / calls


def ways(broker_url: str, producer: Producer) -> dict[str, Callable[[Sequence[uuid.UUID]], object]]:
    """Each way to ask for calls, by its name."""
    app = Celery(broker=broker_url)

    def celery(ids: Sequence[uuid.UUID]) -> None:
        for call_id in ids:
            app.send_task(
                TaskName.EVALUATE_CALL.value, kwargs={"call_id": str(call_id)}, queue=Queue.EVALUATE_CALL.value
            )

    return {
        "send_task, one by one (baseline)": celery,
        "call_finished, one by one": lambda ids: [producer.call_finished(call_id) for call_id in ids],
        "calls_finished, a message each": producer.calls_finished,
        "calls_finished, 50 to a message": lambda ids: producer.calls_finished(ids, can_wait=True),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=20_000)
    calls = parser.parse_args().calls
    rows, found = [], {}
    with tempfile.TemporaryDirectory(prefix="qa-bench-") as name:
        home = Path(name) / "home"
        with servers(home, durable=True) as (_, broker_url), Producer(broker_url) as producer:
            for way, send in ways(broker_url, producer).items():
                per_s, cpu_ms = measured(send, calls if "calls_finished" in way else calls // 10)
                rows.append([way, f"{per_s:,.0f}", f"{cpu_ms:.3f}"])
                found[way] = {"calls_per_s": round(per_s), "cpu_ms": round(cpu_ms, 4)}
        remove(home)
    print(table(["", "calls/s", "CPU ms a call"], rows))
    save("enqueue", found)


if __name__ == "__main__":
    main()
