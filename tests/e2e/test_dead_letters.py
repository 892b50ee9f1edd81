"""What dies can be seen and replayed: real workers, real broker, real database, a receiver that checks signatures."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from sqlalchemy import select

from qa_worker import bootstrap
from qa_worker.adapters.postgres.tables import dead_letters, deliveries
from qa_worker.application.dead_letters import Replayed
from qa_worker.application.manage_rules import RuleDraft
from qa_worker.domain.alert_rule import AlertSeverity, RuleKind
from qa_worker.domain.call import Expected
from qa_worker.domain.dead_letter import Choice
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.domain.rubric import JudgeKind
from qa_worker.messages import Queue, send_alert
from qa_worker.producer import Producer
from tests.builders import a_call
from tests.e2e.conftest import System
from tests.e2e.workers import eventually
from tests.servers.receiver import Receiver, Reply

pytestmark = [pytest.mark.services, pytest.mark.e2e]

MISSING = Expected(required_tools=("book_appointment",))
CANARY = "Wilhelmina Quackenbush"
KEY = Fernet.generate_key().decode()
ALERTS: dict[str, str] = {
    "QA_ALERT_ALLOW_HTTP": "true",
    "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8",
    "QA_SECRET_KEYS": KEY,
    "QA_DEAD_LETTERS_EVERY_S": "0.5",
}


@pytest.fixture
def client(system: System, database_url: str, broker_url: str) -> Iterator[bootstrap.Client]:
    """Commands, with the settings that the workers have, too."""
    system.workers.env.update(ALERTS)
    made = bootstrap.Client(database_url=database_url, broker_url=broker_url, changes=ALERTS)
    yield made
    made.close()


def _letters(system: System) -> list[Any]:
    with system.engine.connect() as connection:
        return list(connection.execute(select(dead_letters).order_by(dead_letters.c.died_at)))


def _deliveries(system: System) -> list[Any]:
    with system.engine.connect() as connection:
        return list(connection.execute(select(deliveries).order_by(deliveries.c.created_at)))


def _on_the_queue(broker_url: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(broker_url) as broker:
        raw = broker.lrange(Queue.DEAD_LETTER.value, 0, -1)
    return [json.loads(base64.b64decode(json.loads(one)["body"])) for one in raw]


def _hear_of_failed_calls(client: bootstrap.Client, receiver: Receiver) -> None:
    made = client.alerts.add_endpoint(workspace="default", name="ops", kind=EndpointKind.WEBHOOK, url=receiver.url)
    assert made.secret
    receiver._secrets = (made.secret,)
    rule = RuleDraft("failed", RuleKind.EVALUATION_FAILED, AlertSeverity.CRITICAL, ("ops",), cooldown_s=0)
    client.alerts.add_rule(rule, workspace="default")


def _envelope(body: bytes, headers: dict[str, Any], content_type: str = "application/json") -> str:
    where = {"exchange": "", "routing_key": "send-alert"}
    properties = {"body_encoding": "base64", "delivery_tag": str(uuid.uuid4()), "delivery_info": where}
    encoded = base64.b64encode(body).decode()
    parts = {"content-type": content_type, "content-encoding": "utf-8", "headers": headers, "properties": properties}
    return json.dumps({"body": encoded, **parts})


def _headers(task: str) -> dict[str, Any]:
    return {"lang": "py", "task": task, "id": str(uuid.uuid4()), "eta": None, "expires": None}


def _junk() -> dict[str, str | bytes]:
    """What has ended a worker, or was dropped without a trace, before there was a consumer of our own."""
    known = _headers("send-alert")
    return {
        "an unknown task": _envelope(json.dumps([[], {"said": CANARY}, {}]).encode(), _headers("no-such-task")),
        "no headers": _envelope(b'{"hello": 1}', {}),
        "no JSON": _envelope(b"{nope", known),
        "a pickle": _envelope(b"\x80\x03}q\x00.", known, "application/x-python-serialize"),
        "an object for a body": _envelope(b'{"a": 1}', known),
        "a number for a body": _envelope(b"5", known),
        "a bad id": _envelope(b'[[], {"delivery_id": "x"}, {}]', known),
        "a missing id": _envelope(b"[[], {}, {}]", known),
        "a time that is none": _envelope(b"[[], {}, {}, 1]", {**known, "eta": "whenever"}),
        "bare JSON, as a backend may push it": '{"call_id": "1"}',
        "no text": b"\xff\xfe\x00",
        "deep nesting": "[" * 100_000,
    }


def test_what_nobody_can_read_becomes_a_letter_and_the_worker_goes_on(system: System, broker_url: str) -> None:
    worker = system.workers.start(Queue.SEND_ALERT)
    junk = _junk()
    with redis.Redis.from_url(broker_url) as broker:
        for message in junk.values():
            broker.lpush(Queue.SEND_ALERT.value, message)

        eventually(lambda: len(_letters(system)) == len(junk), what="every message has its letter", within_s=30)
        eventually(lambda: broker.hlen("unacked") == 0, what="all of them are acknowledged", within_s=30)
        assert broker.llen(Queue.SEND_ALERT.value) == 0
    with Producer(broker_url) as producer:
        producer.send([send_alert(uuid.uuid4())])
    eventually(lambda: "no such delivery" in system.workers.logs(), what="the worker still takes messages", within_s=30)

    assert worker.poll() is None
    assert {letter.kind for letter in _letters(system)} == {"message"}
    reasons = [letter.reason for letter in _letters(system)]
    assert (reasons.count("unknown_task"), reasons.count("bad_arguments")) == (1, 2)
    (unknown,) = [letter for letter in _letters(system) if letter.reason == "unknown_task"]
    assert (unknown.task, unknown.queue, unknown.payload["whole"]) == ("no-such-task", "send-alert", True)
    assert CANARY in unknown.payload["head"]
    assert CANARY not in system.workers.logs()


def test_without_a_database_a_message_waits_on_the_dead_letter_queue(
    system: System, client: bootstrap.Client, broker_url: str
) -> None:
    real = system.workers.env["DATABASE_URL"]
    system.workers.env["DATABASE_URL"] = "postgresql+psycopg2://qa@127.0.0.1:1/none"
    system.workers.start(Queue.SEND_ALERT)
    with redis.Redis.from_url(broker_url) as broker:
        broker.lpush(Queue.SEND_ALERT.value, _junk()["an unknown task"])
    eventually(lambda: len(_on_the_queue(broker_url)) == 1, what="it is on the queue", within_s=30)
    (kept,) = _on_the_queue(broker_url)
    assert (kept["letter_id"], kept["unread"]["task"]) == (None, "no-such-task")
    assert _letters(system) == []

    system.workers.env["DATABASE_URL"] = real
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()

    eventually(lambda: len(_letters(system)) == 1, what="it has its letter", within_s=30)
    (letter,) = _letters(system)
    assert (letter.task, letter.reason) == ("no-such-task", "unknown_task")

    def announced() -> bool:
        return [one["letter_id"] for one in _on_the_queue(broker_url)] == [str(letter.id)]

    eventually(announced, what="the queue tells of the letter instead", within_s=30)
    assert client.alerts.queries.letter_figures().depth == 1


def test_an_alert_that_dies_is_announced_and_replayed_under_its_webhook_id(
    system: System, client: bootstrap.Client, broker_url: str
) -> None:
    with Receiver(default=Reply(404)) as receiver:
        _hear_of_failed_calls(client, receiver)
        for queue in (Queue.EVALUATE_CALL, Queue.SEND_ALERT, Queue.MAINTENANCE):
            system.workers.start(queue)
        system.workers.start_beat()
        system.submit(a_call("one", expected=MISSING), judge=JudgeKind.RULES)

        eventually(lambda: len(_on_the_queue(broker_url)) == 1, what="its letter is on the queue", within_s=60)
        (letter,) = _letters(system)
        (shown,) = _on_the_queue(broker_url)
        assert (letter.kind, letter.reason) == (shown["kind"], shown["reason"]) == ("alert", "http_404")
        assert shown["letter_id"] == str(letter.id)

        receiver.default = Reply(200)
        (answer,) = client.alerts.replay(Choice(), limit=9, rate=5, by="ops")
        assert isinstance(answer, Replayed)

        eventually(lambda: _deliveries(system)[-1].state == "done", what="the replay is delivered", within_s=60)
        eventually(lambda: _on_the_queue(broker_url) == [], what="the queue is empty again", within_s=60)
        first, *_, last = receiver.deliveries
        assert (first.id, first.body) == (last.id, last.body)
        assert all(delivery.verified for delivery in receiver.deliveries)
    view = client.alerts.queries.letter(letter.id)
    assert view is not None
    assert (view.state, view.outcome, view.settled_by) == ("replayed", "delivered", "ops")


def test_grading_never_waits_for_a_receiver(system: System, client: bootstrap.Client) -> None:
    """The receiver of the first call's alert doesn't answer; that call, and every other one, is stored meanwhile."""
    system.workers.env["QA_ALERT_TIMEOUT_S"] = "60"
    with Receiver(default=Reply(after_s=50)) as receiver:
        _hear_of_failed_calls(client, receiver)
        system.workers.start(Queue.EVALUATE_CALL)
        system.workers.start(Queue.SEND_ALERT)
        (first,) = system.submit(a_call("first", expected=MISSING), judge=JudgeKind.RULES)
        eventually(lambda: len(receiver.deliveries) == 1, what="the alert is on its way", within_s=60)

        stored = system.done([first, *system.submit(a_call("second", expected=MISSING), judge=JudgeKind.RULES)])

        open_ = [row.state for row in _deliveries(system)]
        assert [view.verdict for view in stored] == ["fail", "fail"]
        assert "running" in open_, "the first delivery is still open, and both calls are stored"
        assert "done" not in open_
