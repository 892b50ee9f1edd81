"""Every fault of the provider, its SDK and the way there, as a `Failure`: the one place that knows their kinds.

Messages are our own words. What the provider says may repeat a part of the request, and so of a transcript.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import anthropic
import httpx2

from qa_worker.adapters.claude.client import CutBody, UnusableBody
from qa_worker.domain.failure import Failure, FailureKind

FAULTS = (anthropic.AnthropicError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL)
"""What our client and the SDK raise, the SDK's own and what slips through it. What aiohttp raises comes as the cause of
an `APIConnectionError`, whether the SDK's transport knows it or not.
"""

MAX_RETRY_AFTER_S = 3600.0
"""No provider gets to stop us for longer than this; it is asked again then."""

_OVERLOADED = 529
_PASSING = frozenset({408, 409, 499})
"""Client errors by their number that say nothing about the request: timeout, conflict, connection closed."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,59}")
_SPEND_CODES = frozenset(
    {"enforced_spend_limit_reached", "contract_spend_limit_reached", "linked_organization_spend_limit_reached"}
)
# The limits that a customer sets, and an empty account, come as a plain 400: only the wording tells them apart.
_SPEND_WORDS = ("you have reached your specified api usage limits", "your credit balance is too low")

_TIMEOUTS: Mapping[type[httpx2.TimeoutException], tuple[str, str]] = {
    httpx2.ConnectTimeout: ("connect_timeout", "Claude could not be reached in time."),
    httpx2.ReadTimeout: ("read_timeout", "Claude did not answer in time."),
    httpx2.PoolTimeout: ("pool_timeout", "No connection became free in time: more calls at a time than connections."),
}

# UnicodeError: a host name that DNS has no form for
_UNSENDABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL, UnicodeError)

_WHAT_TO_FIX: Mapping[int, str] = {
    400: "Claude refused the request as invalid. Check the model, effort and rubric (one with very many criteria?).",
    401: "Claude refused the API key. Check ANTHROPIC_API_KEY.",
    403: "The API key may not use this model or workspace. Check its permissions in the Claude console.",
    404: "Claude knows no such model or address. Check the judge's model and ANTHROPIC_BASE_URL.",
    413: "The call is too long for one request.",
    422: "Claude could not process the request. Check the model and rubric.",
}

_INSTALLATION = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})


def classify(error: Exception, *, now_s: float) -> Failure:
    """The failure that an error of `FAULTS` stands for.

    `now_s` is the time of day in seconds since the epoch: a provider may name the hour to come back.
    """
    if isinstance(error, anthropic.APIStatusError):
        return _status(error, now_s=now_s)
    if isinstance(error, anthropic.APIResponseValidationError) or _caused_by(error, (UnusableBody,)):
        return bad_response()
    if isinstance(error, anthropic.AnthropicError) and not isinstance(error, anthropic.APIConnectionError):
        return Failure(FailureKind.REJECTED, "sdk", f"The Anthropic SDK gave up ({type(error).__name__}).")
    return _unanswered(error)


def _unanswered(error: Exception) -> Failure:
    """Nothing came, or not all of it."""
    if _caused_by(error, (CutBody,)):
        return Failure(FailureKind.TRANSIENT, "cut_answer", "The connection was cut in the middle of Claude's answer.")
    if isinstance(error, (anthropic.APITimeoutError, httpx2.TimeoutException)):
        return _timeout(error)
    if _caused_by(error, _UNSENDABLE):
        return Failure(
            FailureKind.BLOCKED, "bad_address", "The request can't be sent at all. Check ANTHROPIC_BASE_URL."
        )
    # names of exception classes are safe to show, and tell a DNS fault from a refused certificate
    return Failure(FailureKind.TRANSIENT, "connection", f"No connection to Claude ({type(_root(error)).__name__}).")


def bad_response(request_id: str | None = None, *, status: int = 200) -> Failure:
    """An HTTP success whose body is no message: a proxy's page, a cut answer."""
    message = f"What answered with HTTP {status} was not Claude. Check ANTHROPIC_BASE_URL and proxies."
    return Failure(FailureKind.TRANSIENT, "bad_response", message, request_id=request_id)


def retry_after_s(value: str | None, *, now_s: float) -> float | None:
    """Seconds to wait by a `retry-after` header: seconds or an HTTP date, within bounds; None for anything else."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value, now_s=now_s)
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _until(http_date: str, *, now_s: float) -> float:
    try:
        return parsedate_to_datetime(http_date).timestamp() - now_s
    except (ValueError, OverflowError):
        return math.nan


def _status(error: anthropic.APIStatusError, *, now_s: float) -> Failure:
    kind, code, message = _verdict(error)
    return Failure(
        kind,
        code,
        message,
        retry_after_s=retry_after_s(error.response.headers.get("retry-after"), now_s=now_s),
        request_id=error.request_id,
    )


def _verdict(error: anthropic.APIStatusError) -> tuple[FailureKind, str, str]:
    status, code = error.status_code, f"http_{error.status_code}"
    if _is_spend_cap(error):
        message = "The spend limit of the Claude account is reached. Raise it or add credit in the Claude console."
        return FailureKind.SPEND_CAP, _named(error) or code, message
    if status == _OVERLOADED or error.type == "overloaded_error":
        return FailureKind.OVERLOADED, f"http_{_OVERLOADED}", "Claude is overloaded."
    if status == HTTPStatus.TOO_MANY_REQUESTS or error.type == "rate_limit_error":
        return FailureKind.RATE_LIMITED, _named(error) or code, "The rate limit of the Claude account is reached."
    # an error within a success is how a stream reports one
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status < HTTPStatus.MULTIPLE_CHOICES:
        return FailureKind.TRANSIENT, code, f"Claude failed with HTTP {status}{_typed(error)}."
    fix = _WHAT_TO_FIX.get(status, f"HTTP {status} is no answer of Claude's. Check ANTHROPIC_BASE_URL and proxies.")
    # A wrong key or address, a missing permission, a model's wrong name: no call is to blame, and all wait for the mend.
    kind = FailureKind.BLOCKED if status in _INSTALLATION or status < HTTPStatus.BAD_REQUEST else FailureKind.REJECTED
    return kind, code, f"{fix}{_typed(error)}"


def _is_spend_cap(error: anthropic.APIStatusError) -> bool:
    if error.status_code == HTTPStatus.PAYMENT_REQUIRED or error.type == "billing_error":
        return True
    if error.error_code in _SPEND_CODES:
        return True
    words = error.api_message.casefold() if isinstance(error.api_message, str) else ""
    return error.status_code == HTTPStatus.BAD_REQUEST and any(spent in words for spent in _SPEND_WORDS)


def _named(error: anthropic.APIStatusError) -> str | None:
    """The provider's own code for the cause, if it looks like one."""
    code = error.error_code
    return code if code is not None and _CODE.fullmatch(code) else None


def _typed(error: anthropic.APIStatusError) -> str:
    named = _named(error) or error.type
    return f" ({named})" if isinstance(named, str) and _CODE.fullmatch(named) else ""


def _timeout(error: Exception) -> Failure:
    for kind, (code, message) in _TIMEOUTS.items():
        if _caused_by(error, (kind,)):
            return Failure(FailureKind.TRANSIENT, code, message)
    return Failure(FailureKind.TRANSIENT, "timeout", "The exchange with Claude took too long.")


def _caused_by(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kinds):
        cause = cause.__cause__
    return cause is not None


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
