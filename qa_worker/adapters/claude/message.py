"""Reading the body of `POST /v1/messages`: whether it can be used, its usage, its text.

The body is read as plain JSON. The SDK's own models check nothing (a body without any field gives an object full of
None) and cost most of the CPU time of a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qa_worker.adapters.claude.faults import bad_response
from qa_worker.application.judging import JudgeAnswer, RateLimits
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.reading import Unreadable, read_assessment
from qa_worker.domain.rubric import Rubric

MAX_RAW_CHARS = 20_000
_CATEGORIES = frozenset({"cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"})

_STOPS: Mapping[str, tuple[FailureKind, str, str]] = {
    # not REJECTED: nothing is wrong with the request, and a person should look at the call
    "refusal": (
        FailureKind.UNREADABLE,
        "refusal",
        "Claude refused to grade this call; the same request is normally refused again.",
    ),
    "max_tokens": (
        FailureKind.UNREADABLE,
        "max_tokens",
        "The answer was cut at its token limit. Raise the judge's max_tokens or lower its effort.",
    ),
    "model_context_window_exceeded": (
        FailureKind.REJECTED,
        "model_context_window_exceeded",
        "The call does not fit the model's context window.",
    ),
    "stop_sequence": (FailureKind.UNREADABLE, "stop:stop_sequence", "The answer ended at a stop sequence."),
    "tool_use": (FailureKind.UNREADABLE, "stop:tool_use", "The answer ended in a tool call."),
    "pause_turn": (FailureKind.UNREADABLE, "stop:pause_turn", "The answer was paused."),
}


def read_answer(
    content: bytes, *, request_id: str | None, model: str, rubric: Rubric, limits: RateLimits | None = None
) -> JudgeAnswer:
    """The answer that a successful response, or an item of a batch's results, holds; `model` was asked for."""
    body = read_body(content)
    if body is None:
        return JudgeAnswer(bad_response(request_id), Usage(), model, request_id, "", limits)
    text = read_text(body["content"])
    result = _stopped(body, request_id) or _assessment(text, rubric, request_id)
    return JudgeAnswer(
        result=result,
        usage=read_usage(body["usage"]),
        model=body["model"] if isinstance(body.get("model"), str) else model,
        request_id=request_id,
        raw=text[:MAX_RAW_CHARS] if isinstance(result, Failure) else "",
        limits=limits,
    )


def read_body(content: bytes) -> dict[str, Any] | None:
    """The message, or None where the body is none."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or body.get("type") != "message":
        return None
    expected = (("content", list), ("usage", dict), ("stop_reason", str))
    return body if all(isinstance(body.get(name), kind) for name, kind in expected) else None


def read_text(blocks: list[Any]) -> str:
    """The text blocks joined: the first block may be thinking."""
    texts = (block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _stopped(body: Mapping[str, Any], request_id: str | None) -> Failure | None:
    """The failure that an answer's stop reason stands for; None where the model ended by itself."""
    reason = body["stop_reason"]
    if reason == "end_turn":
        return None
    kind, code, message = _STOPS.get(reason, (FailureKind.UNREADABLE, "stop:other", "The answer ended early."))
    if reason == "refusal":
        code = f"refusal:{refusal_category(body.get('stop_details'))}"
    return Failure(kind, code, message, request_id=request_id)


def refusal_category(details: Any) -> str:
    """What a refusal was about, as far as the provider says so in a word that is known."""
    category = details.get("category") if isinstance(details, dict) else None
    return category if isinstance(category, str) and category in _CATEGORIES else "other"


def _assessment(text: str, rubric: Rubric, request_id: str | None) -> Assessment | Failure:
    try:
        return read_assessment(text, rubric=rubric)
    except Unreadable as error:
        message = f"{str(error).capitalize()}."
        return Failure(FailureKind.UNREADABLE, f"answer_{error.reason.value}", message, request_id=request_id)


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """The tokens that a message says it took; what can't be read counts nothing."""
    split = usage.get("cache_creation")
    written = _count(usage, "cache_creation_input_tokens")
    written_1h = _count(split, "ephemeral_1h_input_tokens")
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        cache_read_tokens=_count(usage, "cache_read_input_tokens"),
        # only 5-minute marks are sent, so a total without its split is of that kind
        cache_write_5m_tokens=max(written - written_1h, _count(split, "ephemeral_5m_input_tokens")),
        cache_write_1h_tokens=written_1h,
        output_tokens=_count(usage, "output_tokens"),
        thinking_tokens=_count(usage.get("output_tokens_details"), "thinking_tokens"),
    )


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else 0
