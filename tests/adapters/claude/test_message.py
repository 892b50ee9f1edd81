from __future__ import annotations

import json
from typing import Any

import pytest

from qa_worker.adapters.claude.message import MAX_RAW_CHARS, read_answer
from qa_worker.application.judging import JudgeAnswer, RateLimits
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.failure import Failure, FailureKind
from tests.domain.grading_samples import RUBRIC, answer_text

USAGE = {
    "input_tokens": 900,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 2_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 2_000, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 420,
    "output_tokens_details": {"thinking_tokens": 120},
}
COUNTED = Usage(input_tokens=900, cache_write_5m_tokens=2_000, output_tokens=420, thinking_tokens=120)


def message(text: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": answer_text() if text is None else text}],
        "stop_reason": "end_turn",
        "stop_details": None,
        "usage": USAGE,
    } | changes


def read(body: Any) -> JudgeAnswer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(content, request_id="req_1", model="asked-for", rubric=RUBRIC)


@pytest.mark.parametrize("content", [json.dumps(message()).encode(), b"<html>"])
def test_limits_are_handed_on_with_every_answer(content: bytes) -> None:
    limits = RateLimits(requests=1_000)
    assert read_answer(content, request_id=None, model="m", rubric=RUBRIC, limits=limits).limits == limits


def failure(read_as: JudgeAnswer) -> Failure:
    assert isinstance(read_as.result, Failure)
    return read_as.result


def test_a_good_message_is_an_assessment_with_its_usage() -> None:
    given = read(message())
    assert isinstance(given.result, Assessment)
    assert given.result.summary == "The caller wanted a table."
    assert (given.usage, given.model, given.request_id, given.raw) == (COUNTED, "claude-haiku-5-5", "req_1", "")


def test_blocks_are_picked_by_their_type() -> None:
    half = len(answer_text()) // 2
    blocks = [
        {"type": "thinking", "thinking": "", "signature": "sig"},
        {"type": "text", "text": answer_text()[:half]},
        {"type": "from_the_future", "text": "{}"},
        {"type": "text", "text": answer_text()[half:]},
        {"type": "text", "text": None},
        None,
    ]
    assert isinstance(read(message(content=blocks)).result, Assessment)


@pytest.mark.parametrize(
    ("body", "kind", "code", "raw"),
    [
        (
            message("", stop_reason="refusal", stop_details={"type": "refusal", "category": "cyber"}),
            FailureKind.UNREADABLE, "refusal:cyber", "",
        ),
        (message("I won't.", stop_reason="refusal"), FailureKind.UNREADABLE, "refusal:other", "I won't."),
        (
            message("", stop_reason="refusal", stop_details={"category": "my card is 4111"}),
            FailureKind.UNREADABLE, "refusal:other", "",
        ),
        # a refusal wins over whatever the text looks like
        (message(stop_reason="refusal"), FailureKind.UNREADABLE, "refusal:other", answer_text()),
        (message('{"summary": "Th', stop_reason="max_tokens"), FailureKind.UNREADABLE, "max_tokens", '{"summary": "Th'),
        (message(stop_reason="max_tokens"), FailureKind.UNREADABLE, "max_tokens", answer_text()),
        (message(content=[], stop_reason="max_tokens"), FailureKind.UNREADABLE, "max_tokens", ""),
        (
            message("", stop_reason="model_context_window_exceeded"),
            FailureKind.REJECTED, "model_context_window_exceeded", "",
        ),
        (message("", stop_reason="tool_use"), FailureKind.UNREADABLE, "stop:tool_use", ""),
        (message("", stop_reason="pause_turn"), FailureKind.UNREADABLE, "stop:pause_turn", ""),
        (message("", stop_reason="something new"), FailureKind.UNREADABLE, "stop:other", ""),
        (message(""), FailureKind.UNREADABLE, "answer_empty", ""),
        (message(content=[]), FailureKind.UNREADABLE, "answer_empty", ""),
        (message("Fine call!"), FailureKind.UNREADABLE, "answer_no_json", "Fine call!"),
        (message('{"summary": "The'), FailureKind.UNREADABLE, "answer_cut", '{"summary": "The'),
        (message("{}"), FailureKind.UNREADABLE, "answer_missing", "{}"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_keeps_its_usage_and_text(
    body: dict[str, Any], kind: FailureKind, code: str, raw: str
) -> None:
    given = read(body)
    assert (failure(given).kind, failure(given).code) == (kind, code)
    assert (given.usage, given.raw) == (COUNTED, raw)
    assert failure(given).request_id == "req_1"
    assert "4111" not in repr(failure(given))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Sign in</title>",
        b'{"id": "msg_1", "type": "mess',
        b"\xff\xfe\x00",
        b'"a string"',
        b"[]",
        b"null",
        b"[" * 200_000,
        b'{"usage": ' + b"9" * 5_000 + b"}",
        {"id": "msg_1"},
        {"type": "error", "error": {"type": "api_error", "message": "x"}},
        message(content=None),
        message(usage=None),
        message(stop_reason=None),
        dict.fromkeys(message()),
    ],
)
def test_a_success_that_is_no_message_is_a_fault_of_the_way_there(body: Any) -> None:
    given = read(body)
    assert (failure(given).kind, failure(given).code) == (FailureKind.TRANSIENT, "bad_response")
    assert (given.usage, given.model, given.raw) == (Usage(), "asked-for", "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, COUNTED),
        ({"cache_creation": None}, COUNTED),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 1_500}},
            Usage(900, 0, 500, 1_500, 420, 120),
        ),
        (
            {"cache_read_input_tokens": 2_000, "cache_creation_input_tokens": 0, "cache_creation": None},
            Usage(900, 2_000, 0, 0, 420, 120),
        ),
        (
            {"cache_read_input_tokens": None, "cache_creation_input_tokens": None, "cache_creation": None,
             "output_tokens_details": None},
            Usage(900, output_tokens=420),
        ),
        ({"input_tokens": "900", "output_tokens": True, "output_tokens_details": [1]}, Usage(cache_write_5m_tokens=2_000)),
        ({"input_tokens": -5}, Usage(0, 0, 2_000, 0, 420, 120)),
    ],
)  # fmt: skip
def test_usage_is_read_as_the_provider_counts_it(changes: dict[str, Any], expected: Usage) -> None:
    assert read(message(usage=USAGE | changes)).usage == expected


def test_the_model_that_answered_is_named() -> None:
    assert read(message(model=None)).model == "asked-for"
    assert read(message(model="claude-haiku-5-5-eu")).model == "claude-haiku-5-5-eu"


def test_what_is_kept_of_an_unreadable_answer_is_bounded() -> None:
    assert len(read(message("x" * 100_000)).raw) == MAX_RAW_CHARS
