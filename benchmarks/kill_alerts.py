"""A worker that sends alerts is killed between the POST and its record, again and again: each alert arrives all the same.

Every alert's first try is caught at the receiver, and the process that made it gets SIGKILL: one half of them while it
waits for the answer, the other half after its 200 came, in the middle of recording it (its row is locked meanwhile). Then
leases run out, the sweep frees what the dead held, and other processes send it again.

Each process is forked from one that has imported everything, so that dying costs milliseconds; it runs the task
`send-alert` with real settings, PostgreSQL, broker and HTTP. Deliveries are handed to them from the real queue, one at a
time; rescue and dispatcher are those of beat.

python -m benchmarks.kill_alerts [--kills 100]
"""

from __future__ import annotations

import argparse
import math
import os
import queue
import select as polling
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from kombu import Connection as BrokerConnection
from sqlalchemy import Connection, Engine, func, select, text

from benchmarks.rig import save, table, wait_for
from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.migrate import upgrade
from qa_worker.adapters.postgres.tables import dead_letters, deliveries, delivery_attempts
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.adapters.secrets import FernetVault, new_key
from qa_worker.adapters.webhooks.signing import new_secret
from qa_worker.application.alerting import NewAlert
from qa_worker.application.delivering import NewEndpoint
from qa_worker.application.dispatch_deliveries import dispatch_deliveries
from qa_worker.application.rescue_deliveries import rescue_deliveries
from qa_worker.domain.alert import AlertEvent
from qa_worker.domain.alert_rule import AlertSeverity
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.endpoint import EndpointKind, HealthRules
from qa_worker.embedded.stack import remove, servers
from qa_worker.messages import Queue, send_alert
from tests.servers.behaviours import Hang
from tests.servers.receiver import Behaviour, Receiver

RULES = HealthRules()
# A lease is three times this: what the dead held is free again so long after.
_TIMEOUT_S = 3.0
_SWEEP_EVERY_S = 0.2
_RESEND_AFTER_S = 5.0
_WORKSPACE = "kills"
_WAITS_FOR_THE_ROW = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@dataclass(frozen=True, slots=True)
class Desk:
    """Stores endpoints and alerts as `raise_alerts` does, and does what beat would."""

    engine: Engine
    publisher: Publisher
    vault: FernetVault

    def uow(self) -> PostgresUnitOfWork:
        """A transaction."""
        return PostgresUnitOfWork(self.engine, send=self.publisher.send, prompt_version="bench")

    def endpoint(self, name: str, *, url: str, secret: str) -> uuid.UUID:
        """A webhook of the workspace."""
        made = NewEndpoint(
            id=uuid.uuid4(),
            workspace_name=_WORKSPACE,
            name=name,
            kind=EndpointKind.WEBHOOK,
            target_hint=url,
            target=self.vault.seal(url),
            secret=self.vault.seal(secret),
        )
        with self.uow() as work:
            work.endpoints.add(made)
            work.commit()
        return made.id

    def alert(self, endpoint: uuid.UUID, number: int) -> None:
        """One alert to it, and its message."""
        alert = NewAlert(
            id=uuid.uuid4(),
            workspace=WorkspaceId(workspace_id(_WORKSPACE)),
            event=AlertEvent.TEST,
            severity=AlertSeverity.INFO,
            title=f"number {number}",
            body=b'{"type":"test","data":{"number":%d}}' % number,
            at=datetime.now(UTC),
        )
        with self.uow() as work:
            raised = work.alerts.raise_alert(alert, [endpoint], max_attempts=7)
            for delivery in work.deliveries.queue_new(raised, RULES, limit=128):
                work.nudge(send_alert(delivery))
            work.commit()

    def sweep(self) -> None:
        """What two beats do."""
        rescue_deliveries(uow=self.uow, resend_after_s=_RESEND_AFTER_S, waiting=self.publisher.waiting_alerts)
        dispatch_deliveries(uow=self.uow, rules=RULES, patience_s=3600, limit=128)

    def left(self) -> int:
        """How many deliveries are not final."""
        with self.engine.connect() as connection:
            unfinished = deliveries.c.state.not_in(["done", "dead"])
            return int(connection.execute(select(func.count()).select_from(deliveries).where(unfinished)).scalar_one())


@contextmanager
def desk(*, database_url: str, broker_url: str, key: str) -> Iterator[Desk]:
    """With connections of its own."""
    publisher = Publisher(broker_url)
    engine = make_engine(database_url, pool_size=4, pool_timeout_s=5, application_name="bench")
    try:
        yield Desk(engine, publisher, FernetVault([key]))
    finally:
        publisher.close()
        engine.dispose()


@dataclass
class Trap:
    """Catches the first try of every alert at the receiver."""

    connection: Connection
    receiver: Receiver | None = None
    caught: queue.SimpleQueue[tuple[str, bool]] = field(default_factory=queue.SimpleQueue)
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, _path: str) -> Behaviour | None:
        """On the receiver's thread: no answer, or 200 with the delivery's row locked; later tries get 200."""
        assert self.receiver is not None
        message_id = self.receiver.deliveries[-1].id
        self.seen[message_id] += 1
        if self.seen[message_id] > 1:
            return None
        answered = len(self.seen) % 2 == 0
        if answered:
            row = select(deliveries.c.id).where(deliveries.c.message_id == message_id).with_for_update()
            self.connection.execute(row).one()
        self.caught.put((message_id, answered))
        return None if answered else Hang()


class Nursery:
    """A process that forks a worker for each delivery; its children die alone."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self._sink = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kill_alerts", "--nursery"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._sink,
            bufsize=0,
        )

    def fork(self, delivery_id: str) -> int:
        """A worker that sends this delivery; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{delivery_id}\n".encode())
        return self._read()

    def ended(self, *, within_s: float) -> int | None:
        """The exit code of the worker, negative where a signal ended it; None where it still runs after that time."""
        assert self._process.stdout is not None
        ready, _, _ = polling.select([self._process.stdout], [], [], within_s)
        return self._read() if ready else None

    def close(self) -> None:
        """No more workers."""
        with self._sink, self._process:
            self._process.kill()

    def _read(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the nursery ended: see {self._sink.name}")
        return int(line)


def kill_workers(*, database_url: str, broker_url: str, kills: int, folder: Path) -> dict[str, Any]:
    """Send `kills` alerts, each of which kills the first worker that sends it; what arrived, and how often."""
    key, secret = new_key(), new_secret()
    env = {
        **os.environ,
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "QA_ALERT_ALLOW_HTTP": "true",
        "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8",
        "QA_ALERT_TIMEOUT_S": str(_TIMEOUT_S),
        "QA_SECRET_KEYS": key,
        "QA_JUDGE": "rules",
    }
    began = time.monotonic()
    with ExitStack() as stack:
        made = stack.enter_context(desk(database_url=database_url, broker_url=broker_url, key=key))
        trap = Trap(stack.enter_context(made.engine.connect()))
        receiver = stack.enter_context(Receiver([secret], by_path=trap))
        trap.receiver = receiver
        nursery = Nursery(env, folder / "nursery.log")
        stack.callback(nursery.close)
        # As many endpoints as let all of them be under way at once: a dead worker's delivery keeps its place.
        endpoints = [
            made.endpoint(f"ops-{number}", url=receiver.url, secret=secret)
            for number in range(math.ceil(kills / RULES.in_flight))
        ]
        for number in range(kills):
            made.alert(endpoints[number % len(endpoints)], number)
        codes = _send_all(made, trap, nursery, broker_url)
        return {**_result(made, receiver, codes, kills=kills), "seconds": round(time.monotonic() - began, 1)}


def _send_all(made: Desk, trap: Trap, nursery: Nursery, broker_url: str) -> Counter[str]:
    """Hand what lies on the queue to workers, until every delivery is final; how they ended."""
    codes: Counter[str] = Counter()
    swept_at = 0.0
    with BrokerConnection(broker_url) as connection, connection.SimpleQueue(Queue.SEND_ALERT.value) as waiting:
        while made.left():
            if time.monotonic() - swept_at > _SWEEP_EVERY_S:
                made.sweep()
                swept_at = time.monotonic()
            try:
                message = waiting.get(timeout=_SWEEP_EVERY_S)
            except queue.Empty:
                continue
            codes[_live_and_die(made, trap, nursery, message.payload[1]["delivery_id"])] += 1
            message.ack()
    return codes


def _live_and_die(made: Desk, trap: Trap, nursery: Nursery, delivery_id: str) -> str:
    """One worker, from its fork to its end."""
    pid = nursery.fork(delivery_id)
    while True:
        try:
            message_id, answered = trap.caught.get(timeout=0.002)
        except queue.Empty:
            code = nursery.ended(within_s=0.002)
            if code is None:
                continue
            assert code == 0, "a worker failed: see the nursery's log"
            return "survived"
        if answered:
            with made.engine.connect() as connection:
                wait_for(lambda: connection.execute(_WAITS_FOR_THE_ROW).scalar_one(), what="the record", within_s=20)
        os.kill(pid, signal.SIGKILL)
        code = nursery.ended(within_s=20)
        trap.connection.rollback()
        assert code == -signal.SIGKILL
        _check_unrecorded(made, message_id)
        return "killed after the answer" if answered else "killed before the answer"


def _check_unrecorded(made: Desk, message_id: str) -> None:
    """The kill was in time: the alert is at the receiver, and its row knows nothing of that."""
    tried = (
        select(func.count()).select_from(delivery_attempts).where(delivery_attempts.c.delivery_id == deliveries.c.id)
    )
    row = select(deliveries.c.state, deliveries.c.attempt, tried.scalar_subquery().label("tried"))
    with made.engine.connect() as connection:
        found = connection.execute(row.where(deliveries.c.message_id == message_id)).one()
    assert tuple(found) == ("running", 1, 0), f"a kill missed: {found}"


def _result(made: Desk, receiver: Receiver, codes: Counter[str], *, kills: int) -> dict[str, Any]:
    came: dict[str, list[Any]] = {}
    for one in receiver.deliveries:
        came.setdefault(one.id, []).append(one)
    with made.engine.connect() as connection:
        rows = connection.execute(select(deliveries)).all()
        letters = connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()
    return {
        "alerts": kills,
        "killed_before_answer": codes["killed before the answer"],
        "killed_after_answer": codes["killed after the answer"],
        "delivered": sum(row.state == "done" for row in rows),
        "dead_letters": letters,
        "posts": len(receiver.deliveries),
        "webhook_ids": len(came),
        "unknown_webhook_ids": len(came.keys() - {row.message_id for row in rows}),
        "most_posts_of_one_id": max(map(len, came.values()), default=0),
        "bodies_that_changed": sum(len({post.body for post in posts}) > 1 for posts in came.values()),
        "bad_signatures": sum(not post.verified for post in receiver.deliveries),
    }


def _nurse() -> None:
    """Fork a worker for each line, print its process id, and its exit code when it has ended."""
    from qa_worker import bootstrap  # noqa: PLC0415 - what the children need, loaded once
    from qa_worker.bootstrap import sending  # noqa: F401, PLC0415 - otherwise each child would load it
    from qa_worker.tasks.send_alert import send_alert as task  # noqa: PLC0415

    def live(delivery_id: str) -> NoReturn:
        code = 1
        try:
            task(delivery_id=delivery_id)
            bootstrap.close_worker()
            code = 0
        finally:
            # It must never go on as its parent.
            os._exit(code)

    # What workers print goes to the log, and only answers to who asks.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            live(line.strip())
        print(pid, file=answers)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--nursery", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.nursery:
        _nurse()
        return
    with tempfile.TemporaryDirectory(prefix="qa-bench-") as name:
        home = Path(name) / "home"
        try:
            with servers(home, durable=True) as (database_url, broker_url):
                upgrade(database_url)
                result = kill_workers(
                    database_url=database_url, broker_url=broker_url, kills=options.kills, folder=Path(name)
                )
        finally:
            remove(home)
    shown = [[what.replace("_", " "), str(value)] for what, value in result.items()]
    print(table(["kill -9 between the POST and its record", ""], shown))
    save("kill_alerts", {"at": time.strftime("%Y-%m-%d"), **result})
    assert result["delivered"] == result["webhook_ids"] == options.kills, "an alert was lost, or changed its id"


if __name__ == "__main__":
    main()
