"""What the local Messages API says in a conversation: words, and calls of tools. Checks what the real one is strict about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tests.servers.behaviours import Raw

USAGE = {"input_tokens": 300, "output_tokens": 20}


def words(text: str, *, stop_reason: str = "end_turn") -> Raw:
    """A message with this text."""
    return _message([{"type": "text", "text": text}] if text else [], stop_reason)


def uses(*calls: tuple[str, Mapping[str, Any]], text: str = "") -> Raw:
    """A message that calls these tools, perhaps after some words."""
    said = [{"type": "text", "text": text}] if text else []
    blocks = [
        {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": dict(given)}
        for number, (name, given) in enumerate(calls)
    ]
    return _message([*said, *blocks], "tool_use")


def _message(content: list[dict[str, Any]], stop_reason: str) -> Raw:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": content,
        "stop_reason": stop_reason,
        "usage": USAGE,
    }
    return Raw("talk", json.dumps(body).encode())


def check(body: Mapping[str, Any]) -> None:
    """Fails where the real API would answer 400: sides alternate, the user's first and last, results follow calls."""
    messages = body["messages"]
    assert messages[0]["role"] == messages[-1]["role"] == "user"
    assert all(before["role"] != after["role"] for before, after in pairwise(messages))
    for before, after in pairwise([*messages, {"content": []}]):
        called = [block["id"] for block in before["content"] if block["type"] == "tool_use"]
        answered = [block["tool_use_id"] for block in after["content"] if block["type"] == "tool_result"]
        assert called == answered
    assert all(message["content"] for message in messages)
    assert all(block["text"].strip() for message in messages for block in message["content"] if block["type"] == "text")


def texts(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(side, words) of each message."""
    return [
        (
            message["role"],
            "\n".join(block["text"] for block in message["content"] if block["type"] == "text"),
        )
        for message in body["messages"]
    ]
