"""What an answer, or its absence, means for a delivery."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore

from qa_worker.adapters.webhooks.guard import NotResolved
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind

_LONGEST_WAIT_S = 7 * 24 * 3600.0
_MOST_DIGITS = 9
_GONE = 410
_TOO_MANY = 429
# Not the receiver's last word: it was too slow to read, or not ready yet (RFC 9110, 8470).
_AGAIN = frozenset({408, 425})
_FAULTS: tuple[tuple[type[Exception], str, str], ...] = (
    (NotResolved, "dns", "The name server has no answer for the receiver's name."),
    (httpcore.ConnectTimeout, "connect_timeout", "The receiver took no connection in time."),
    (httpcore.TimeoutException, "timeout", "No answer within the time that a delivery may take."),
    (httpcore.ConnectError, "connect", "The receiver takes no connection."),
    (httpcore.ProtocolError, "protocol", "The receiver hung up, or its answer was no HTTP."),
)


def failure_of_status(status: int, headers: Mapping[str, str], *, now: datetime) -> Failure | None:
    """None for 2xx. `headers` in lower case; `now` is what a date in `retry-after` is compared with."""
    code = f"http_{status}"
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own classes
        return None
    wait_s = retry_after_s(headers.get("retry-after", ""), now=now)
    if status == _TOO_MANY:
        return Failure(FailureKind.RATE_LIMITED, code, "The receiver asks for fewer alerts.", retry_after_s=wait_s)
    if status in _AGAIN or status >= 500:  # noqa: PLR2004 - as above
        message = f"The receiver answered {status}, which may pass."
        return Failure(FailureKind.TRANSIENT, code, message, retry_after_s=wait_s)
    if status == _GONE:
        return Failure(FailureKind.REJECTED, code, "The receiver answered 410: it wants no more alerts.")
    if status < 400:  # noqa: PLR2004 - as above
        message = f"The receiver answered {status}. Redirects are not followed: enter the address they lead to."
        return Failure(FailureKind.REJECTED, code, message)
    return Failure(FailureKind.REJECTED, code, f"The receiver answered {status} and refuses this alert.")


def failure_of_error(error: Exception) -> Failure:
    """What went wrong before there was an answer. No text of a system is passed on but the TLS library's verdict."""
    if isinstance(error, InvalidInput):
        return Failure(FailureKind.REJECTED, "refused_url", f"Not sent: {error.problem}. {error.fix}.")
    # Not its `__cause__`, which the pool takes away when it raises the error again.
    cause = error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"The receiver's certificate is not valid: {cause.verify_message}."
        return Failure(FailureKind.TRANSIENT, "tls_certificate", why)
    if isinstance(cause, ssl.SSLError):
        return Failure(FailureKind.TRANSIENT, "tls", "The receiver and we could not agree on TLS.")
    for kind, code, message in _FAULTS:
        if isinstance(error, kind):
            return Failure(FailureKind.TRANSIENT, code, message)
    return Failure(FailureKind.TRANSIENT, "connection_lost", "The connection to the receiver broke.")


def retry_after_s(value: str, *, now: datetime) -> float | None:
    """The seconds that a `retry-after` asks for, given as a number or as a date; None where it can't be read."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:_MOST_DIGITS]), _LONGEST_WAIT_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0.0), _LONGEST_WAIT_S)
