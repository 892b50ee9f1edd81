"""From a failing verdict to its alert at the receiver, and what a slow receiver adds to grading, on an idle system.

Failing calls come one by one through the real producer, broker and workers (one process for each queue, beat beside them).
The time runs from `evaluated_at`, when the verdict was decided, to the arrival of the signed webhook at a receiver in a
process of its own, which verifies it; all on one machine and its clock. The goal is a P95 under 300 ms. What one delivery
costs, how many go out in a second, and what a slow receiver does to the others is measured by `benchmarks.deliveries`.

Then the time from a call's submission until its evaluation is stored, as seen from outside: without any rule, with a
receiver that answers at once, and with one that takes 9.9 s for each alert. Grading waits for neither.

python -m benchmarks.alerts [--calls 100]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.rig import Rig, a_call, rig, save, table, wait_for
from qa_worker import bootstrap
from qa_worker.adapters.secrets import new_key
from qa_worker.application.manage_rules import RuleDraft
from qa_worker.application.ports import Wanted
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.alert_rule import AlertSeverity, RuleKind
from qa_worker.domain.call import Expected
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.domain.rubric import JudgeKind
from qa_worker.messages import Queue

WARM_UP = 5
SLOW_S = 9.9
_RULES_HOLD_AFTER_S = 5.5
_BETWEEN_S = 0.2
_STATE = text("SELECT state FROM evaluations WHERE id = :id")
_RAISED = text("SELECT count(*) FROM deliveries d JOIN workspaces w ON w.id = d.workspace_id WHERE w.name = :workspace")
_MISSING = Expected(required_tools=("a_tool_that_nobody_called",))
_TIMES = text(
    "SELECT d.message_id, extract(epoch FROM e.evaluated_at) AS decided, extract(epoch FROM d.delivered_at) AS recorded "
    "FROM deliveries d JOIN alerts a ON a.id = d.alert_id JOIN evaluations e ON e.id = a.evaluation_id "
    "WHERE d.state = 'done' ORDER BY e.evaluated_at"
)


def measure(*, calls: int) -> dict[str, Any]:
    """One worker process for each queue, with default settings."""
    allowed = {"QA_ALERT_ALLOW_HTTP": "true", "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8", "QA_SECRET_KEYS": new_key()}
    with rig(latency_s=0, extra=allowed) as system, _client(system, allowed) as client:
        for queue in (Queue.EVALUATE_CALL, Queue.SEND_ALERT, Queue.MAINTENANCE):
            system.start_worker(queue)
        system.start_beat()
        log = system.folder / "received.jsonl"
        engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
        with _receiver(client, log), engine.connect() as connection:
            for number in range(WARM_UP + calls):
                _fail(client, number)
                _arrived(connection, number + 1)
                time.sleep(_BETWEEN_S)
            rows = connection.execute(_TIMES).all()
        engine.dispose()
        received = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(one["verified"] for one in received)
    came_at = {one["id"]: float(one["at"]) for one in received}
    measured = rows[WARM_UP:]
    return {
        "calls": len(measured),
        "verified": len(received),
        "to_arrival_ms": _figures([came_at[row.message_id] - float(row.decided) for row in measured]),
        "to_recorded_ms": _figures([float(row.recorded - row.decided) for row in measured]),
    }


def storing(*, calls: int) -> dict[str, dict[str, float]]:
    """The same worker processes: ms until a failing verdict is stored, by who is told of it."""
    allowed = {"QA_ALERT_ALLOW_HTTP": "true", "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8", "QA_SECRET_KEYS": new_key()}
    with rig(latency_s=0, extra=allowed) as system, _client(system, allowed) as client, ExitStack() as stack:
        for queue in (Queue.EVALUATE_CALL, Queue.SEND_ALERT, Queue.MAINTENANCE):
            system.start_worker(queue)
        system.start_beat()
        engine = create_engine(system.database_url, isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)
        connection = stack.enter_context(engine.connect())
        for number in range(WARM_UP):
            _stored_s(client, connection, number, workspace="warm")
        took = {"no receiver": _all_stored(client, connection, calls, workspace="nobody")}
        for name, slow in (("a receiver that answers at once", False), (f"a receiver that takes {SLOW_S} s", True)):
            stack.enter_context(_receiver(client, system.folder / f"{slow}.jsonl", workspace=name, slow=slow))
            time.sleep(_RULES_HOLD_AFTER_S)
            took[name] = _all_stored(client, connection, calls, workspace=name)
            # Matches that come together are one alert.
            assert connection.execute(_RAISED, {"workspace": name}).scalar_one(), "nobody was told"
    return {name: _figures(seconds) for name, seconds in took.items()}


def _all_stored(client: bootstrap.Client, connection: Connection, calls: int, *, workspace: str) -> list[float]:
    took = []
    for number in range(calls):
        took.append(_stored_s(client, connection, number, workspace=workspace))
        time.sleep(_BETWEEN_S)
    return took


def _stored_s(client: bootstrap.Client, connection: Connection, number: int, *, workspace: str) -> float:
    began = time.monotonic()
    evaluation_id = _fail(client, number, workspace=workspace)
    while connection.execute(_STATE, {"id": evaluation_id}).scalar_one() != "done":
        time.sleep(0.001)
    return time.monotonic() - began


def _fail(client: bootstrap.Client, number: int, *, workspace: str = "bench") -> uuid.UUID:
    call = replace(a_call(number), expected=_MISSING)
    (answer,) = client.submit([call], workspace=workspace, wanted=Wanted(judge=JudgeKind.RULES))
    assert isinstance(answer, Accepted)
    return answer.evaluation_id


def _arrived(connection: Connection, count: int) -> None:
    done = text("SELECT count(*) FROM deliveries WHERE state = 'done'")
    wait_for(lambda: connection.execute(done).scalar_one() >= count, what="the alert is delivered", within_s=60)


@contextmanager
def _client(system: Rig, changes: dict[str, str]) -> Iterator[bootstrap.Client]:
    made = bootstrap.Client(database_url=system.database_url, broker_url=system.broker_url, changes=changes)
    yield made
    made.close()


@contextmanager
def _receiver(client: bootstrap.Client, log: Path, *, workspace: str = "bench", slow: bool = False) -> Iterator[None]:
    """A receiver that knows its secret, with an endpoint and a rule that tells it of every failed call."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}/{'slow' if slow else 'hook'}"
    made = client.alerts.add_endpoint(workspace=workspace, name="ops", kind=EndpointKind.WEBHOOK, url=url)
    rule = RuleDraft("failed", RuleKind.EVALUATION_FAILED, AlertSeverity.CRITICAL, ("ops",), cooldown_s=0)
    client.alerts.add_rule(rule, workspace=workspace)
    arguments = ["--port", str(port), "--secret", made.secret or "", "--log", str(log), "--slow", str(SLOW_S)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.receiver", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _figures(seconds: list[float]) -> dict[str, float]:
    ms = sorted(1000 * one for one in seconds)
    return {
        "p50": round(statistics.median(ms), 1),
        "p95": round(ms[int(0.95 * (len(ms) - 1))], 1),
        "worst": round(ms[-1], 1),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    options = parser.parse_args()
    result = measure(calls=options.calls)
    rows = [
        [what, *(f"{figures[name]:.1f}" for name in ("p50", "p95", "worst"))]
        for what, figures in (
            ("verdict decided -> webhook arrived", result["to_arrival_ms"]),
            ("verdict decided -> delivery recorded", result["to_recorded_ms"]),
        )
    ]
    print(table(["ms", "p50", "p95", "worst"], rows))
    print(f"{result['calls']} failing calls, one by one; {result['verified']} signatures verified, none bad")
    stored = storing(calls=options.calls)
    rows = [[who, *(f"{figures[name]:.1f}" for name in ("p50", "p95", "worst"))] for who, figures in stored.items()]
    print(table(["ms from submission to stored", "p50", "p95", "worst"], rows))
    save("alerts", {**result, "stored_ms": stored})


if __name__ == "__main__":
    main()
