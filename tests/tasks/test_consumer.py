"""What the consumer tells monitors, and which connections it makes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.control import Panel
from kombu import Message

import celeryconfig
from qa_worker.celery_app import app
from qa_worker.messages import Queue
from qa_worker.producer import declared_queue
from qa_worker.tasks import consumer

ID = "5b0c4f4e-0d0e-5a3b-9a5e-0f6f3c3c7a11"


def test_monitors_are_told_of_the_queue_that_nobody_takes_from() -> None:
    taken = SimpleNamespace(queues=[declared_queue(Queue.SEND_ALERT)])
    state = SimpleNamespace(consumer=SimpleNamespace(task_consumer=taken))

    told = Panel.data["active_queues"](state)

    assert [queue["name"] for queue in told] == ["send-alert", "dead-letter"]
    assert Queue.DEAD_LETTER.value not in {queue.name for queue in celeryconfig.task_queues}


def test_the_brokers_url_stays_one_that_flower_understands() -> None:
    with app.connection_for_write("redis://127.0.0.1:1/0") as connection:
        assert connection.as_uri().startswith("redis://")


def _message(body: str, **headers: Any) -> Message:
    given: dict[str, Any] = {"task": "send-alert", "id": ID, **headers}
    message = Message(body, content_type="application/json", content_encoding="utf-8", headers=given)
    message.accept = {"application/json"}
    return message


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {}, None),
        # As beat and Celery's own retries have them.
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {"eta": "2026-11-23T08:00:00.000001+00:00"}, None),
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {"expires": "2026-11-23T08:00:00Z"}, None),
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {"eta": "soon"}, "unreadable"),
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {"id": None}, "unreadable"),
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {"task": 7}, "unreadable"),
        (f'[[], {{"delivery_id": "{ID}"}}, {{}}]', {"task": "no-such-task"}, "unknown_task"),
        ("{", {}, "unreadable"),
        ("[]", {}, "unreadable"),
        ("[[], {}, {}]", {}, "bad_arguments"),
    ],
)
def test_a_message_is_looked_at_before_a_task_is_begun(
    body: str, headers: dict[str, object], reason: str | None
) -> None:
    fault = consumer._fault(_message(body, **headers), {"send-alert"})

    assert (fault and fault.reason) == reason
