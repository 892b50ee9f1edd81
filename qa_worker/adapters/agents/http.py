"""An agent behind an HTTP endpoint of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qa_worker.adapters.agents.exchange import read_reply, request, turn_number
from qa_worker.adapters.agents.settings import mapping, text
from qa_worker.adapters.agents.web import AgentWeb
from qa_worker.application.playing import AgentReply, PlayContext
from qa_worker.domain.failure import Failure
from qa_worker.domain.transcript import Turn


class HttpAgent:
    """Implements the port `AgentPlayer`. It runs its own tools and tells of them in its reply."""

    def __init__(self, settings: Mapping[str, Any], web: AgentWeb) -> None:
        """`settings` has `url` and perhaps `headers`. Raises InvalidInput."""
        self._web = web
        self._endpoint = web.endpoint(
            text(settings, "url", example="https://agent.example/reply"), mapping(settings, "headers")
        )

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        """See the port."""
        body = json.dumps(request(context, history, told)).encode()
        # the same turn asked again, after a fault, carries the same key
        key = {"idempotency-key": f"{context.run_id}:{turn_number(history)}"}
        replied = self._web.post(self._endpoint, body, within_s=context.limits.reply_s, headers=key)
        if isinstance(replied, Failure):
            return replied
        return read_reply(replied.content, took_s=replied.took_s)
