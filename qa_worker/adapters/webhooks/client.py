"""The one HTTP client of a process through which alerts leave.

Synchronous, for the threads of the worker: a delivery costs 0.4 to 0.9 ms of CPU so, 2.4 with httpx's asynchronous
client.
"""

from __future__ import annotations

import http.cookiejar
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import httpcore
import httpx

from qa_worker.adapters.webhooks.guard import Guard, NotResolved
from qa_worker.adapters.webhooks.outcomes import failure_of_error, failure_of_status
from qa_worker.adapters.webhooks.transport import PIECE, GuardedTransport, deadline
from qa_worker.application.channels import Answer
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind

_READ = 64 * 1024
_KEPT = 1024
_KEPT_ALIVE = 32
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    InvalidInput,
    NotResolved,
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: until a connection stands, name server included, and for the whole exchange."""

    connect_s: float = 5.0
    total_s: float = 10.0


class WebClient:
    """Implements the port `Poster`. Threads share it; make one for each process."""

    def __init__(
        self,
        guard: Guard,
        *,
        now: Callable[[], datetime],
        timeouts: Timeouts = Timeouts(),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` None trusts certifi's roots, or those of SSL_CERT_FILE, where a private authority may be."""
        self._guard = guard
        self._now = now
        self._timeouts = timeouts
        transport = GuardedTransport(
            guard,
            connect_timeout_s=timeouts.connect_s,
            kept_alive=_KEPT_ALIVE,
            tls=tls or httpx.create_ssl_context(),
        )
        self._client = httpx.Client(
            transport=transport,
            # No proxy and no password of the environment: a proxy would connect where nobody has checked.
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeouts.total_s, connect=timeouts.connect_s),
            # Not compressed, so that a small answer can't become a large one.
            headers={"user-agent": "qa-worker", "accept": "*/*", "accept-encoding": "identity"},
        )
        # What one receiver sets must not be sent with the next alert.
        self._client.cookies.jar.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))

    def check(self, url: str) -> str:
        """See the port."""
        return self._guard.check_url(url).origin

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See the port."""
        began = time.monotonic()
        try:
            self._guard.check_url(url)
            with deadline(self._timeouts.total_s):
                request = self._client.build_request("POST", url, content=body, headers=dict(headers))
                response = self._client.send(request, stream=True)
                try:
                    head = _head(response)
                finally:
                    response.close()
        except _FAULTS as error:
            return Answer(failure_of_error(error), _ms_since(began))
        except httpx.InvalidURL:
            refused = Failure(FailureKind.REJECTED, "refused_url", "Not sent: the URL can't be read.")
            return Answer(refused, _ms_since(began))
        failure = failure_of_status(response.status_code, response.headers, now=self._now())
        return Answer(failure, _ms_since(began), response.status_code, head)

    def close(self) -> None:
        """Close what is kept alive."""
        self._client.close()


def _head(response: httpx.Response) -> str:
    """The beginning of what was said. Its end is waited for only because the connection can be used again then.

    A receiver that has answered and then falls silent has still answered: its status counts.
    """
    kept, seen = bytearray(), 0
    try:
        for piece in response.iter_raw():
            kept += piece[: _KEPT - len(kept)]
            seen += len(piece)
            if seen > _READ - PIECE:
                break
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        pass
    # PostgreSQL's text holds no NUL, and a replaced character is longer than what it stands for.
    text = kept.decode(errors="replace").replace("\x00", "\ufffd")
    return text.encode()[:_KEPT].decode(errors="ignore")


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
