"""Alerts delivered a second, what one costs, and whether a slow or dead receiver holds up the others.

20 endpoints get 20 alerts each, every half second one or all at once, through the real broker, worker and client to a
receiver in a process of its own. The time of a delivery runs from the moment it is stored to its recorded 2xx.

The baseline is a shared queue of 8: the same code with 8 slots, without a limit or a breaker for each endpoint.

python -m benchmarks.deliveries [--only NAME]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.rig import Rig, rig, save, table, wait_for
from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.adapters.secrets import FernetVault, new_key
from qa_worker.adapters.webhooks.signing import new_secret
from qa_worker.application.alerting import NewAlert
from qa_worker.application.delivering import NewEndpoint
from qa_worker.domain.alert import AlertEvent
from qa_worker.domain.alert_rule import AlertSeverity
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.endpoint import EndpointKind, HealthRules
from qa_worker.messages import Queue, send_alert

ENDPOINTS, EACH = 20, 20
_SHARED_SLOTS, _NO_LIMIT = 8, 10_000
SLOW_S = 9.9
_BODY = b'{"type":"test","data":{"text":"' + b"x" * 1150 + b'"}}'
_TIMES = text(
    "SELECT e.name, extract(epoch FROM d.delivered_at - d.created_at) AS s FROM deliveries d "
    "JOIN endpoints e ON e.id = d.endpoint_id JOIN alerts a ON a.id = d.alert_id WHERE a.title = :round"
)
_LEFT = text(
    "SELECT count(*) FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id "
    "WHERE e.name LIKE 'fast%' AND d.state NOT IN ('done', 'dead')"
)


@dataclass(frozen=True, slots=True)
class Case:
    """How many of the 20 answer after 9.9 s, and how many take no connection; how far the alerts are apart.

    `against` is the case whose P95 this one's is divided by. `shared` is the baseline.
    """

    name: str
    slow: int = 0
    dead: int = 0
    every_s: float = 0.5
    against: str = "all fast"
    shared: bool = False

    @property
    def rules(self) -> HealthRules:
        """How many deliveries one endpoint may have under way."""
        return HealthRules(in_flight=_NO_LIMIT, threshold=_NO_LIMIT) if self.shared else HealthRules()

    @property
    def settings(self) -> dict[str, str]:
        """The worker's, where they aren't the usual ones."""
        no_limit = str(_NO_LIMIT)
        names = ("QA_ALERT_ENDPOINT_LIMIT", "QA_ALERT_BREAKER_THRESHOLD")
        return dict.fromkeys(names, no_limit) if self.shared else {}


CASES = (
    Case("all fast"),
    Case("1 of 20 slow", slow=1),
    Case("1 of 20 dead", dead=1),
    Case("3 of 20 slow", slow=3),
    Case("10 of 20 slow", slow=10),
    Case("at once, all fast", every_s=0, against="at once, all fast"),
    Case("at once, 1 of 20 slow", slow=1, every_s=0, against="at once, all fast"),
    Case("shared queue of 8, all fast", shared=True),
    Case("shared queue of 8, 1 of 20 slow", slow=1, against="shared queue of 8, all fast", shared=True),
)


@dataclass(frozen=True, slots=True)
class Raiser:
    """Stores alerts and sends their messages, as `raise_alerts` does."""

    engine: Any
    publisher: Publisher
    vault: FernetVault

    def uow(self) -> PostgresUnitOfWork:
        """A transaction."""
        return PostgresUnitOfWork(self.engine, send=self.publisher.send, prompt_version="bench")

    def endpoints(self, case: Case, url: str) -> list[uuid.UUID]:
        """The 20 endpoints of a case."""
        base = url.rsplit("/", 1)[0]
        ids = []
        for number in range(ENDPOINTS):
            kind = "slow" if number < case.slow else "dead" if number < case.slow + case.dead else "fast"
            target = "http://127.0.0.1:1/dead" if kind == "dead" else f"{base}/{kind}-{number}"
            made = NewEndpoint(
                id=uuid.uuid4(),
                workspace_name="bench",
                name=f"{kind}-{number}",
                kind=EndpointKind.WEBHOOK,
                target_hint=base,
                target=self.vault.seal(target),
                secret=self.vault.seal(new_secret()),
            )
            with self.uow() as work:
                work.endpoints.add(made)
                work.commit()
            ids.append(made.id)
        return ids

    def raise_to(
        self, endpoints: list[uuid.UUID], *, name: str, each: int, rules: HealthRules, every_s: float = 0
    ) -> None:
        """`each` alerts to all of them."""
        began = time.monotonic()
        for number in range(each):
            time.sleep(max(0.0, began + number * every_s - time.monotonic()))
            alert = NewAlert(
                id=uuid.uuid4(),
                workspace=WorkspaceId(workspace_id("bench")),
                event=AlertEvent.TEST,
                severity=AlertSeverity.INFO,
                title=name,
                body=_BODY,
                at=datetime.now(UTC),
            )
            with self.uow() as work:
                raised = work.alerts.raise_alert(alert, endpoints, max_attempts=7)
                for delivery in work.deliveries.queue_new(raised, rules, limit=128):
                    work.nudge(send_alert(delivery))
                work.commit()


def measure(case: Case) -> dict[str, Any]:
    """One worker process with the concurrency of the local stack."""
    key = new_key()
    allowed = {"QA_ALERT_ALLOW_HTTP": "true", "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8", "QA_SECRET_KEYS": key}
    with (
        rig(latency_s=0, extra={**allowed, **case.settings}) as system,
        _receiver() as url,
        _raiser(system, key) as raiser,
    ):
        worker = system.start_worker(Queue.SEND_ALERT, concurrency=_SHARED_SLOTS if case.shared else None)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        endpoints = raiser.endpoints(case, url)
        fast = [one for number, one in enumerate(endpoints) if number >= case.slow + case.dead]
        engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            raiser.raise_to(fast, name="warm", each=3, rules=case.rules)
            _done(connection)
            before = worker.cpu_times()
            raiser.raise_to(endpoints, name="measured", each=EACH, rules=case.rules, every_s=case.every_s)
            _done(connection)
            after = worker.cpu_times()
            rows = connection.execute(_TIMES, {"round": "measured"}).all()
        engine.dispose()
    took = sorted(float(row.s) for row in rows if row.name.startswith("fast"))
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "case": case.name,
        "fast": {
            "deliveries": len(took),
            "p50_s": round(statistics.median(took), 3),
            "p95_s": round(took[int(0.95 * (len(took) - 1))], 3),
            "max_s": round(took[-1], 3),
            "per_s": round(len(took) / took[-1], 1) if case.every_s == 0 else None,
        },
        "cpu_ms_each": round(1000 * cpu_s / len(took), 2),
    }


@contextmanager
def _receiver() -> Iterator[str]:
    arguments = [sys.executable, "-m", "tests.servers.receiver", "--slow", str(SLOW_S)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def _raiser(system: Rig, key: str) -> Iterator[Raiser]:
    publisher = Publisher(system.broker_url)
    engine = make_engine(system.database_url, pool_size=2, pool_timeout_s=5, application_name="bench")
    try:
        yield Raiser(engine, publisher, FernetVault([key]))
    finally:
        publisher.close()
        engine.dispose()


def _done(connection: Connection) -> None:
    wait_for(lambda: connection.execute(_LEFT).scalar_one() == 0, what="the fast deliveries", within_s=120)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the name of one case")
    options = parser.parse_args()
    results = [measure(case) for case in CASES if options.only is None or options.only == case.name]
    p95 = {one["case"]: one["fast"]["p95_s"] for one in results}
    against = {case.name: p95.get(case.against) for case in CASES}
    for one in results:
        usual = against[one["case"]]
        one["p95_ratio"] = None if usual is None else round(one["fast"]["p95_s"] / usual, 2)
    rows = [
        [
            one["case"],
            *(f"{one['fast'][name]:.3f}" for name in ("p50_s", "p95_s", "max_s")),
            f"{one['p95_ratio'] or '-'}",
            f"{one['fast']['per_s'] or '-'}",
            f"{one['cpu_ms_each']:.2f}",
        ]
        for one in results
    ]
    print(table(["case", "p50 s", "p95 s", "max s", "x all fast", "fast/s", "CPU ms"], rows))
    save("deliveries", {"at": time.strftime("%Y-%m-%d"), "cases": results})


if __name__ == "__main__":
    main()
