"""Slack's messages: readable, within Block Kit's limits, and free of what callers might smuggle in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from qa_worker.adapters.slack import SlackChannel, message_of
from qa_worker.application.channels import Answer, Parcel
from qa_worker.domain.failure import Failure, FailureKind
from tests.documents import a_document

BUSY = Answer(Failure(FailureKind.RATE_LIMITED, "http_429", "Fewer.", retry_after_s=30), 5, 429, "rate_limited")


class ScriptedPoster:
    """Answers always the same, and keeps what it was given."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.posted: list[tuple[str, bytes, Mapping[str, str]]] = []

    def check(self, url: str) -> str:
        return url.rpartition("/")[0]

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.posted.append((url, body, headers))
        return self.answer


def _message(**data: Any) -> dict[str, Any]:
    return message_of(json.dumps(a_document(**data)).encode(), "msg_1")


def _texts(message: Mapping[str, Any]) -> list[str]:
    found = []
    for block in message["blocks"]:
        parts = [block["text"]] if "text" in block else []
        found += [part["text"] for part in [*parts, *block.get("fields", []), *block.get("elements", [])]]
    return found


def test_an_alert_becomes_blocks_that_people_can_read() -> None:
    message = _message()

    assert message["text"] == "critical: Evaluation failed: Booking"
    kinds = [block["type"] for block in message["blocks"]]
    assert kinds[0] == "header"
    assert kinds[-1] == "context"
    texts = _texts(message)
    assert ":red_circle: Evaluation failed: Booking" in texts
    assert "*Overall*\n41 of 100" in texts
    assert any("It asked for the PIN." in text and "\n> tell me" in text for text in texts)
    assert any("<https://qa.example.com/calls/1|Open the call>" in text for text in texts)
    assert any("msg_1" in text for text in texts), "who sees it twice can tell"


def test_what_a_caller_says_is_text_and_calls_nobody() -> None:
    hostile = "<!channel> <https://evil.example|click> & @here *bold*"
    reason = {**a_document()["data"]["reasons"][0], "quote": hostile, "explanation": hostile}

    message = _message(reasons=[reason], title=hostile, detail=hostile, summary=hostile)

    for text in _texts(message)[1:]:
        assert "<!channel>" not in text
        assert "<https://evil" not in text
    assert "<!channel>" not in message["text"]
    assert any("&lt;!channel&gt;" in text for text in _texts(message))
    sections = [block["text"] for block in message["blocks"] if block["type"] == "section" and "text" in block]
    assert all(section["verbatim"] for section in sections)


def test_the_largest_alert_keeps_to_block_kits_limits() -> None:
    reason = {**a_document()["data"]["reasons"][0], "quote": "&" * 500, "explanation": "<" * 500}
    case = {**a_document()["data"]["worst"][0], "detail": "&" * 200}
    score = {"criterion": "c" * 200, "score": 3, "applicable": True}
    message = _message(
        title="t" * 200,
        reasons=[reason] * 200,
        worst=[case] * 100,
        scores=[score] * 100,
        summary="&" * 500,
        workspace={"name": "&" * 900},
    )

    assert len(message["blocks"]) == 50
    assert message["blocks"][-1]["type"] == "context"
    assert len(message["blocks"][0]["text"]["text"]) <= 150
    assert all(len(text) <= 3000 for text in _texts(message))
    fields = message["blocks"][1]["fields"]
    assert len(fields) <= 10
    assert all(len(field["text"]) <= 2000 for field in fields)


@pytest.mark.parametrize("body", [b'{"type": "test"}', b"{}"])
def test_no_block_is_ever_empty(body: bytes) -> None:
    assert all(_texts(message_of(body, "msg_1")))


def test_a_message_is_posted_and_slacks_limits_are_passed_on() -> None:
    poster = ScriptedPoster(BUSY)
    body = json.dumps(a_document()).encode()
    target = "https://hooks.slack.com/services/T0/B0/secret"

    answer = SlackChannel(poster).send(Parcel("msg_1", body, datetime.now(UTC), target))

    assert answer == BUSY
    ((url, sent, headers),) = poster.posted
    assert (url, dict(headers)) == (target, {"content-type": "application/json"})
    assert json.loads(sent) == message_of(body, "msg_1")
    assert SlackChannel(poster).check("https://hooks.slack.com/x") == "https://hooks.slack.com"
