"""What the local Messages API can do with a request, as plain data: answers, refusals of every kind, faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Answer:
    """A message. `text` None: an assessment that fits the request's own schema, each criterion at `level`."""

    name: str = "answer"
    text: str | None = None
    level: int = 4
    stop_reason: str = "end_turn"
    refusal_category: str | None = None
    thinking_tokens: int = 0
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of the API, in its shape."""

    name: str
    status: int
    type: str
    message: str
    error_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """A body of any kind, with any status."""

    name: str
    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answers."""

    name: str = "hang"


@dataclass(frozen=True, slots=True)
class Cut:
    """Closes the connection: without a word, in the middle of the headers, or in the middle of the body."""

    where: Literal["nothing", "headers", "body"] = "nothing"

    @property
    def name(self) -> str:
        """What it is counted as."""
        return f"cut_{self.where}"


@dataclass(frozen=True, slots=True)
class Drip:
    """A good answer, a few bytes at a time, from the first header or from the body on."""

    where: Literal["headers", "body"] = "body"
    every_s: float = 0.02
    bytes_at_once: int = 1

    @property
    def name(self) -> str:
        """What it is counted as."""
        return f"drip_{self.where}"


Behaviour = Answer | Fault | Raw | Hang | Cut | Drip


def rate_limited(retry_after: str | None = "7") -> Fault:
    """The usual 429."""
    headers = {"anthropic-ratelimit-requests-remaining": "0"}
    if retry_after is not None:
        headers["retry-after"] = retry_after
    return Fault("rate_limited", 429, "rate_limit_error", "This request would exceed your rate limit.", None, headers)


def ramp_limited() -> Fault:
    """A 429 for traffic that grew too fast."""
    return replace(rate_limited("20"), name="ramp_limited", error_code="ramp_limit_exceeded")


def spend_cap() -> Fault:
    """The monthly cap: a 429 without `retry-after`, until the month turns."""
    message = "You have reached the spend limit of your organization."
    return Fault("spend_cap", 429, "rate_limit_error", message, "enforced_spend_limit_reached")


def own_spend_limit() -> Fault:
    """A limit that the customer set: a plain 400."""
    message = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    return Fault("own_spend_limit", 400, "invalid_request_error", message)


def unauthorised() -> Fault:
    """A wrong key."""
    return Fault("unauthorised", 401, "authentication_error", "invalid bearer token")


def server_error(status: int = 500) -> Fault:
    """A 5xx."""
    return Fault(f"http_{status}", status, "timeout_error" if status == 504 else "api_error", "Internal server error")


def overloaded() -> Fault:
    """529."""
    return Fault("overloaded", 529, "overloaded_error", "Overloaded")


def html() -> Raw:
    """A proxy's page with status 200."""
    return Raw("html", b"<!doctype html><title>Sign in</title>", content_type="text/html; charset=utf-8")


def broken_json() -> Raw:
    """A body that ends in the middle."""
    return Raw("broken_json", b'{"id": "msg_01", "type": "message", "content": [{"type": "te')


def missing_fields() -> Raw:
    """JSON, but no message."""
    return Raw("missing_fields", b'{"id": "msg_01"}')


def refusal(category: str | None = "general_harms", text: str = "") -> Answer:
    """HTTP 200, stop reason `refusal`, often without any text."""
    return Answer("refusal", text=text, stop_reason="refusal", refusal_category=category)


def max_tokens() -> Answer:
    """JSON that was cut at the token limit."""
    text = json.dumps({"summary": "The caller wanted a table.", "findings": []})[:-9]
    return Answer("max_tokens", text=text, stop_reason="max_tokens")


def all_thinking() -> Answer:
    """The whole of `max_tokens` went into thinking: no text at all."""
    return Answer("all_thinking", text="", stop_reason="max_tokens", thinking_tokens=3000)


def thinking_first() -> Answer:
    """A thinking block before the text, as the 5.5 models give by default."""
    return Answer("thinking_first", thinking_tokens=120)


def said(text: str) -> Answer:
    """Exactly this text."""
    return Answer("said", text=text)


def graded(level: int) -> Answer:
    """The plausible assessment with this level for every criterion."""
    return Answer("graded", level=level)


BY_NAME: Mapping[str, Callable[..., Behaviour]] = {
    "answer": Answer, "hang": Hang, "cut": Cut, "drip": Drip,
    **{
        make.__name__: make
        for make in (
            rate_limited, ramp_limited, spend_cap, own_spend_limit, unauthorised, server_error, overloaded, html,
            broken_json, missing_fields, refusal, max_tokens, all_thinking, thinking_first, said, graded,
        )
    },
}  # fmt: skip
"""The behaviours that a script file can name."""


def from_script(entry: Mapping[str, Any]) -> Behaviour:
    """A behaviour from a script file: `{"do": "rate_limited", "retry_after": "3"}`."""
    arguments = {key: value for key, value in entry.items() if key not in ("do", "contains", "times")}
    return BY_NAME[str(entry["do"])](**arguments)
