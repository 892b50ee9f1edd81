"""The producer: light to import, plain on the wire, clear when the broker is away."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid

import pytest
import redis

from qa_worker.domain.errors import StoreUnavailable
from qa_worker.producer import Producer


def test_a_backend_imports_neither_the_database_layer_nor_the_sdk_nor_celery() -> None:
    code = (
        "import sys, qa_worker.producer\n"
        "heavy = {'sqlalchemy', 'psycopg2', 'anthropic', 'celery', 'pydantic', 'httpx', 'httpx2', 'structlog', 'alembic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )

    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={})

    assert printed.stdout.strip() == "[]"


@pytest.mark.services
def test_a_message_holds_ids_and_nothing_else(broker_url: str) -> None:
    call_id, evaluation_id = uuid.uuid4(), uuid.uuid4()
    with Producer(broker_url) as producer:
        task_id = producer.call_finished(call_id, evaluation_id=str(evaluation_id))
        lengths = producer.queue_lengths()
        assert {queue: n for queue, n in lengths.items() if n} == {"evaluate-call": 1}

    with redis.Redis.from_url(broker_url) as client:
        message = json.loads(client.lindex("evaluate-call", 0))
    assert message["headers"]["task"] == "evaluate-call"
    assert message["headers"]["id"] == task_id
    assert message["content-type"] == "application/json"
    assert message["properties"]["delivery_mode"] == 2


@pytest.mark.services
def test_many_messages_keep_their_order_of_arrival(broker_url: str) -> None:
    with Producer(broker_url) as producer:
        ids = [producer.call_finished(uuid.uuid4()) for _ in range(5)]

    with redis.Redis.from_url(broker_url) as client:
        waiting = [json.loads(raw)["headers"]["id"] for raw in client.lrange("evaluate-call", 0, -1)]
    assert waiting[::-1] == ids


@pytest.mark.services
def test_many_calls_leave_in_one_round_trip_each_as_a_message_of_its_own(broker_url: str) -> None:
    calls = [uuid.uuid4() for _ in range(1200)]
    with Producer(broker_url) as producer, redis.Redis.from_url(broker_url) as client:
        producer.call_finished(calls[0])
        before = client.info("stats")["total_reads_processed"]
        ids = producer.calls_finished(calls[1:])
        after = client.info("stats")["total_reads_processed"]
        waiting = [json.loads(raw) for raw in client.lrange("evaluate-call", 0, -1)][::-1]

    assert [message["headers"]["id"] for message in waiting[1:]] == ids
    assert after - before < len(ids) / 2, "the server reads each message alone where they are not pipelined"


@pytest.mark.services
def test_calls_that_can_wait_share_messages(broker_url: str) -> None:
    calls = [uuid.uuid4() for _ in range(120)]
    with Producer(broker_url) as producer, redis.Redis.from_url(broker_url) as client:
        producer.calls_finished(calls, can_wait=True)
        waiting = [json.loads(raw) for raw in client.lrange("backlog", 0, -1)][::-1]

    bodies = [json.loads(base64.b64decode(message["body"]))[1] for message in waiting]
    assert [call_id for body in bodies for call_id in body["call_ids"]] == [str(call_id) for call_id in calls]
    assert [len(body["call_ids"]) for body in bodies] == [50, 50, 20]


@pytest.mark.services
def test_a_connection_that_broke_while_it_idled_costs_no_message(broker_url: str) -> None:
    with Producer(broker_url) as producer, redis.Redis.from_url(broker_url) as client:
        producer.calls_finished([uuid.uuid4(), uuid.uuid4()])
        client.client_kill_filter(_type="normal", skipme=True)
        producer.calls_finished([uuid.uuid4(), uuid.uuid4()])

        assert client.llen("evaluate-call") == 4


def test_an_id_that_is_none_is_refused_before_anything_is_sent() -> None:
    producer = Producer("redis://127.0.0.1:1/0")

    with pytest.raises(ValueError, match="badly formed"):
        producer.call_finished("call-7")


def test_a_broker_that_is_away_is_said_so() -> None:
    with Producer("redis://127.0.0.1:1/0") as producer, pytest.raises(StoreUnavailable, match="broker"):
        producer.call_finished(uuid.uuid4())
