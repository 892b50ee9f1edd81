from __future__ import annotations

from typing import Any

import pytest

from qa_worker.domain.evidence.outcomes import says_failed, tried
from tests.domain.evidence.talk import calls, returns, talk


@pytest.mark.parametrize(
    "result",
    [
        {"status": "error", "message": "not found"},
        {"Status": "ERROR"},
        {"status": "failed", "message": "try later"},
        {"status": "failed"},
        {"success": False},
        {"ok": False, "items": []},
        {"is_error": True, "error": "not found"},
        {"isError": True, "content": []},
        {"error": "no such order"},
        {"errors": ["bad date"]},
        {"status": 404},
        {"statusCode": 503, "body": ""},
        {"result": {"success": False}},
        {"data": {"status": "error"}},
        '"{\\"status\\": \\"error\\"}"',
        "Error: User not found",
        "ERROR - no such user",
        "ValueError: bad date",
        "Exception in tool",
        "Failed to connect",
        "Timeout after 30 s",
        "HTTP 500",
        "status code: 404",
        "404 Not Found",
        "[error] no such user",
    ],
)
def test_results_that_say_that_the_call_failed(result: Any) -> None:
    assert says_failed(returns(result))


@pytest.mark.parametrize(
    "result",
    [
        {"status": "success", "order": {"status": "failed delivery"}},
        {"status": "failed", "order_id": "W1", "total": 12},
        {"status": "cancelled"},
        {"error": None, "items": [1]},
        {"error": "none"},
        {"errors": []},
        {"success": True},
        {"status": 200},
        {"code": 404, "street": "Main"},
        {"status": True},
        [{"status": "error"}],
        "User found",
        "No errors were found",
        "450 Main Street",
        "the terror: a novel",
        "null",
        "",
        "[]",
    ],
)
def test_results_that_do_not(result: Any) -> None:
    assert not says_failed(returns(result))


def test_deep_nesting_is_read_as_text() -> None:
    assert not says_failed(returns("[" * 100_000))


def test_the_platforms_word_counts_as_much_as_the_results() -> None:
    (marked,) = tried(talk(calls("find"), returns("nothing here", is_error=True)).tool_uses())
    (plain,) = tried(talk(calls("find"), returns("Error: no", is_error=False)).tool_uses())
    assert marked.failed
    assert plain.failed
    assert not plain.succeeded


def test_a_call_without_a_result_neither_failed_nor_succeeded() -> None:
    (use,) = tried(talk(calls("find")).tool_uses())
    assert not use.failed
    assert not use.succeeded
