"""As much of a chat endpoint in OpenAI's format as an agent under test needs.

It is strict where real ones are: each tool call must be followed by its result, and no other message may come between.
"""

from __future__ import annotations

import json
from typing import Any, Self

from tests.servers.receiver import Receiver, Reply


class OpenAiEndpoint(Receiver):
    """Answers with what was queued; once the queue is empty, with "I see."."""

    def __init__(self) -> None:
        super().__init__(default=completion(content="I see."))

    @property
    def base(self) -> str:
        """The base URL, as clients of such endpoints want it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests, each checked."""
        bodies = [json.loads(delivery.body) for delivery in self.deliveries]
        for body in bodies:
            check(body["messages"])
        return bodies

    def says(self, text: str) -> Self:
        """The next request gets this text."""
        return self.then(completion(content=text))

    def calls(self, *calls: tuple[str, str], text: str | None = None) -> Self:
        """The next request gets these calls: (tool, arguments as they were written)."""
        made = [
            {"id": f"call_x{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls)
        ]
        return self.then(completion("tool_calls", content=text, tool_calls=made))


def completion(finish_reason: str = "stop", **message: Any) -> Reply:
    """A chat completion with one choice."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "small-1",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47},
    }
    return Reply(200, json.dumps(body).encode(), {"content-type": "application/json"})


def check(messages: list[dict[str, Any]]) -> None:
    """Fails where a real endpoint would answer 400."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, f"calls without results: {waiting}"
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert message["role"] != "assistant" or message["content"] or waiting, "an empty message"
    assert not waiting
    assert [message["role"] for message in messages].index("user") == 1
