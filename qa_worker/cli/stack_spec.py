"""What the local stack consists of: the same commands that docker-compose.yml runs on servers."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from qa_worker.embedded.stack import Command, StackSpec
from qa_worker.messages import Queue

WORKERS = (Queue.EVALUATE_CALL, Queue.RUN_SCENARIO, Queue.SEND_ALERT, Queue.MAINTENANCE)
CELERY = ("celery", "-A", "qa_worker.celery_app")
# A run waits for two models most of its time; a delivery waits for its receiver, 10 s at most.
_CONCURRENCY = {Queue.RUN_SCENARIO: "64", Queue.SEND_ALERT: "32", Queue.MAINTENANCE: "4"}
# glibc gives each few threads a heap of their own, and keeps what each has freed: a fifth of a worker's memory.
WORKER_ENV = {"MALLOC_ARENA_MAX": "2"}
_GRACE_S = 70.0  # a running call ends within the judge's deadline of 60 s


@dataclass(frozen=True, slots=True)
class FlowerSpec:
    """Flower's port on the loopback interface and its credentials, as `user:password`."""

    port: int
    basic_auth: str


def worker_arguments(queue: Queue) -> tuple[str, ...]:
    """The arguments of the worker of one queue; that of live calls takes the backlog, too, when no live call waits.

    Its concurrency comes from the settings, except where little is enough.
    """
    few = ("--concurrency", _CONCURRENCY[queue]) if queue in _CONCURRENCY else ()
    taken = f"{queue.value},{Queue.BACKLOG.value}" if queue is Queue.EVALUATE_CALL else queue.value
    name = f"{queue.value}@%h"
    return (*CELERY, "worker", "-Q", taken, "-n", name, *few, "--without-gossip", "--without-mingle")


def beat_arguments(schedule: str) -> tuple[str, ...]:
    """The arguments of beat; `schedule` is the file in which it remembers what ran when."""
    return (*CELERY, "beat", "--schedule", schedule, "--pidfile=")


def flower_arguments(port: int) -> tuple[str, ...]:
    """The arguments of Flower; its credentials come from FLOWER_BASIC_AUTH, where nobody sees them."""
    return (
        *CELERY,
        "flower",
        "--address=127.0.0.1",
        f"--port={port}",
        "--purge_offline_workers=60",
        "--max_tasks=10000",
    )


def stack_spec(
    home: Path,
    *,
    database_url: str | None,
    broker_url: str | None,
    flower: FlowerSpec | None,
    durable: bool = True,
) -> StackSpec:
    """PostgreSQL and Valkey (those without a URL), the migrations, a worker for each queue, beat, and Flower if asked.

    `durable` False is for a stack whose data go when it stops.
    """
    processes = [
        Command(f"worker-{queue.value}", _run(worker_arguments(queue)), env=WORKER_ENV, grace_s=_GRACE_S)
        for queue in WORKERS
    ]
    schedule = str(home / "celerybeat-schedule")
    processes.append(Command("beat", _run(beat_arguments(schedule)), stop_first=True))
    if flower is not None:
        with_auth = {"FLOWER_BASIC_AUTH": flower.basic_auth}
        processes.append(Command("flower", _run(flower_arguments(flower.port)), env=with_auth, stop_first=True))
    migrations = Command("migrations", (sys.executable, "-m", "qa_worker.cli.main", "db", "upgrade"))
    return StackSpec(
        home=home,
        database_url=database_url,
        broker_url=broker_url,
        setup=(migrations,),
        processes=tuple(processes),
        durable=durable,
    )


def new_flower(port: int) -> FlowerSpec:
    """Flower on this port, with a fresh password."""
    return FlowerSpec(port, f"qa:{secrets.token_urlsafe(18)}")


def _run(arguments: tuple[str, ...]) -> tuple[str, ...]:
    # `python -m` finds the program in this environment whatever PATH says.
    return (sys.executable, "-m", *arguments)
