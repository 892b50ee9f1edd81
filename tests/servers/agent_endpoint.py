"""An agent behind HTTP, as docs/scenarios.md describes it: it says what the test queued, and can misbehave.

`with AgentEndpoint() as agent: agent.says("Hello.")`, then `agent.url` is its URL and `agent.asked` what it was asked.
"""

from __future__ import annotations

import json
from typing import Any, Self

from tests.servers.receiver import Receiver, Reply


class AgentEndpoint(Receiver):
    """Answers with what was queued; once the queue is empty, with "I see."."""

    def __init__(self) -> None:
        super().__init__(default=_json({"text": "I see."}))

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests."""
        return [json.loads(delivery.body) for delivery in self.deliveries]

    def says(self, text: str = "", **more: Any) -> Self:
        """The next request gets this text, with these other fields."""
        return self.then(_json({"text": text, **more}))

    def sends(self, body: bytes, status: int = 200) -> Self:
        """The next request gets exactly this."""
        return self.then(Reply(status, body))


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"content-type": "application/json"})
