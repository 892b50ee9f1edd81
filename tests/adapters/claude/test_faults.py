from __future__ import annotations

from typing import Any, TypeVar

import aiohttp
import anthropic
import httpx2
import pytest
from anthropic._error_classes import make_status_error
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.adapters.claude.client import CutBody, UnusableBody
from qa_worker.adapters.claude.faults import FAULTS, MAX_RETRY_AFTER_S, classify, retry_after_s
from qa_worker.domain.breaker import is_outage
from qa_worker.domain.failure import FailureKind, deadline

NOW_S = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT
REQUEST = httpx2.Request("POST", "https://api.anthropic.com/v1/messages")
SAID = "my card is 4111 1111 1111 1111"

# All else says nothing of the service.
OUTAGES = frozenset(
    {
        "http_500",
        "http_502",
        "http_503",
        "http_504",
        "http_529",
        "connection",
        "connect_timeout",
        "read_timeout",
        "timeout",
        "cut_answer",
    }
)

_Error = TypeVar("_Error", bound=BaseException)


def status_error(
    status: int, error_type: str = "api_error", message: str = SAID, *, code: str | None = None, retry_after: str = ""
) -> anthropic.APIStatusError:
    error: dict[str, Any] = {"type": error_type, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    headers = {"request-id": "req_1"} | ({"retry-after": retry_after} if retry_after else {})
    body = {"type": "error", "error": error}
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return make_status_error(f"Error code: {status} - {body}", body=body, response=response)


def caused(error: _Error, *causes: BaseException) -> _Error:
    """The error with a chain of causes, as `raise ... from` makes one."""
    link: BaseException = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def timed_out(*causes: BaseException) -> anthropic.APITimeoutError:
    return caused(anthropic.APITimeoutError(REQUEST), *causes)


def unconnected(*causes: BaseException) -> anthropic.APIConnectionError:
    return caused(anthropic.APIConnectionError(request=REQUEST), *causes)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (status_error(400, "invalid_request_error"), FailureKind.REJECTED, "http_400"),
        (status_error(401, "authentication_error"), FailureKind.BLOCKED, "http_401"),
        (status_error(403, "permission_error"), FailureKind.BLOCKED, "http_403"),
        (status_error(404, "not_found_error"), FailureKind.BLOCKED, "http_404"),
        (status_error(405), FailureKind.REJECTED, "http_405"),
        (status_error(412), FailureKind.REJECTED, "http_412"),
        (status_error(413, "request_too_large"), FailureKind.REJECTED, "http_413"),
        (status_error(422), FailureKind.REJECTED, "http_422"),
        (status_error(431), FailureKind.REJECTED, "http_431"),
        (status_error(302), FailureKind.BLOCKED, "http_302"),
        (status_error(307), FailureKind.BLOCKED, "http_307"),
        (status_error(402, "billing_error"), FailureKind.SPEND_CAP, "http_402"),
        (
            status_error(402, "billing_error", code="linked_organization_spend_limit_reached"),
            FailureKind.SPEND_CAP,
            "linked_organization_spend_limit_reached",
        ),
        (
            status_error(429, "rate_limit_error", code="enforced_spend_limit_reached"),
            FailureKind.SPEND_CAP,
            "enforced_spend_limit_reached",
        ),
        (
            status_error(429, "rate_limit_error", code="contract_spend_limit_reached"),
            FailureKind.SPEND_CAP,
            "contract_spend_limit_reached",
        ),
        (
            status_error(400, "invalid_request_error", "You have reached your specified API usage limits. Regain ..."),
            FailureKind.SPEND_CAP,
            "http_400",
        ),
        (
            status_error(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            FailureKind.SPEND_CAP,
            "http_400",
        ),
        (status_error(429, "rate_limit_error"), FailureKind.RATE_LIMITED, "http_429"),
        (
            status_error(429, "rate_limit_error", code="ramp_limit_exceeded"),
            FailureKind.RATE_LIMITED,
            "ramp_limit_exceeded",
        ),
        (status_error(408, "timeout_error"), FailureKind.TRANSIENT, "http_408"),
        (status_error(409, "conflict_error"), FailureKind.TRANSIENT, "http_409"),
        (status_error(499), FailureKind.TRANSIENT, "http_499"),
        (status_error(500), FailureKind.TRANSIENT, "http_500"),
        (status_error(502), FailureKind.TRANSIENT, "http_502"),
        (status_error(503), FailureKind.TRANSIENT, "http_503"),
        (status_error(504, "timeout_error"), FailureKind.TRANSIENT, "http_504"),
        (status_error(529, "overloaded_error"), FailureKind.OVERLOADED, "http_529"),
        # an error event within a stream that began well
        (status_error(200, "overloaded_error"), FailureKind.OVERLOADED, "http_529"),
        (status_error(200, "api_error"), FailureKind.TRANSIENT, "http_200"),
        (timed_out(httpx2.ConnectTimeout("")), FailureKind.TRANSIENT, "connect_timeout"),
        (timed_out(httpx2.ReadTimeout("")), FailureKind.TRANSIENT, "read_timeout"),
        (httpx2.PoolTimeout("no connection became free"), FailureKind.TRANSIENT, "pool_timeout"),
        (timed_out(httpx2.ReadTimeout(""), aiohttp.SocketTimeoutError()), FailureKind.TRANSIENT, "read_timeout"),
        (timed_out(httpx2.TimeoutException(""), aiohttp.ServerTimeoutError()), FailureKind.TRANSIENT, "timeout"),
        (timed_out(), FailureKind.TRANSIENT, "timeout"),
        (httpx2.ReadTimeout("read timed out"), FailureKind.TRANSIENT, "read_timeout"),
        (unconnected(httpx2.ConnectError("refused"), ConnectionRefusedError()), FailureKind.TRANSIENT, "connection"),
        (unconnected(httpx2.RemoteProtocolError("disconnected")), FailureKind.TRANSIENT, "connection"),
        (unconnected(httpx2.DecodingError("bad gzip")), FailureKind.TRANSIENT, "connection"),
        (unconnected(), FailureKind.TRANSIENT, "connection"),
        # what aiohttp raises and the SDK's transport doesn't know
        (unconnected(aiohttp.ClientError("bad chunk")), FailureKind.TRANSIENT, "connection"),
        (unconnected(RuntimeError("Session is closed")), FailureKind.TRANSIENT, "connection"),
        (unconnected(UnicodeError("label too long")), FailureKind.BLOCKED, "bad_address"),
        (unconnected(UnusableBody()), FailureKind.TRANSIENT, "bad_response"),
        (unconnected(CutBody(), httpx2.ReadError("reset")), FailureKind.TRANSIENT, "cut_answer"),
        (httpx2.ReadError("reset"), FailureKind.TRANSIENT, "connection"),
        (httpx2.RemoteProtocolError("cut"), FailureKind.TRANSIENT, "connection"),
        (httpx2.StreamClosed(), FailureKind.TRANSIENT, "connection"),
        (unconnected(httpx2.UnsupportedProtocol("htp://")), FailureKind.BLOCKED, "bad_address"),
        (unconnected(httpx2.LocalProtocolError("illegal header")), FailureKind.BLOCKED, "bad_address"),
        (httpx2.InvalidURL("no host"), FailureKind.BLOCKED, "bad_address"),
        (
            anthropic.APIResponseValidationError(httpx2.Response(200, request=REQUEST), body=SAID),
            FailureKind.TRANSIENT,
            "bad_response",
        ),
        (anthropic.CredentialsError(SAID), FailureKind.REJECTED, "sdk"),
        (anthropic.AnthropicError(SAID), FailureKind.REJECTED, "sdk"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_error_has_one_kind_and_code(error: Exception, kind: FailureKind, code: str) -> None:
    failure = classify(error, now_s=NOW_S)
    assert (failure.kind, failure.code) == (kind, code)
    assert is_outage(failure) is (code in OUTAGES)
    # what a provider says may repeat what was said in the call
    assert SAID not in repr(failure)
    assert "4111" not in repr(failure)
    assert failure.message.endswith((".", ")"))
    assert len(failure.message) < 200


def test_the_deadline_is_a_passing_failure() -> None:
    assert (deadline().kind, deadline().code) == (FailureKind.TRANSIENT, "deadline")
    assert is_outage(deadline())


def test_all_errors_of_the_sdk_and_its_transport_are_caught() -> None:
    for error in (status_error(500), timed_out(), unconnected(), httpx2.ReadError(""), httpx2.StreamClosed()):
        assert isinstance(error, FAULTS)


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "ANTHROPIC_API_KEY"), (403, "permissions"), (404, "model"), (413, "too long"), (307, "ANTHROPIC_BASE_URL")],
)
def test_a_rejection_says_what_to_fix(status: int, hint: str) -> None:
    assert hint in classify(status_error(status), now_s=NOW_S).message


def test_the_request_id_and_the_wait_are_kept() -> None:
    failure = classify(status_error(429, "rate_limit_error", retry_after="7"), now_s=NOW_S)
    assert (failure.request_id, failure.retry_after_s) == ("req_1", 7.0)


def test_a_spend_cap_is_seen_where_the_body_is_no_json() -> None:
    response = httpx2.Response(402, request=REQUEST)
    error = make_status_error("402", body="<html>", response=response)
    assert classify(error, now_s=NOW_S).kind is FailureKind.SPEND_CAP


def test_a_type_or_code_that_is_no_identifier_is_not_shown() -> None:
    odd = status_error(500, SAID, code=SAID)
    assert classify(odd, now_s=NOW_S).message == "Claude failed with HTTP 500."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("86400", MAX_RETRY_AFTER_S),
        ("inf", MAX_RETRY_AFTER_S),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("Wed, 18 Nov 2026 11:07:10 GMT", 30.0),
        ("Wed, 18 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 18 Nov 9999 11:00:00 GMT", MAX_RETRY_AFTER_S),
        ("Wed, 99 Nov 2026 11:07:10 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, now_s=NOW_S) == expected


@given(st.text())
def test_any_retry_after_gives_a_bounded_wait_or_none(value: str) -> None:
    seconds = retry_after_s(value, now_s=NOW_S)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_S
