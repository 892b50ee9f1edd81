"""HTTP to an agent under test: checked addresses, one deadline, a bounded answer, every fault as a `Failure`.

Where connections may go is not decided here: the transports come ready made, with their guard.
"""

from __future__ import annotations

import http.cookiejar
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http import HTTPStatus

import httpcore
import httpx

from qa_worker.domain.errors import InvalidInput, QaError
from qa_worker.domain.failure import Failure, FailureKind

MAX_REPLY_BYTES = 1024 * 1024
"""A reply of a voice agent has a few hundred bytes; whoever sends more than this sends something else."""
_MAX_HEADERS = 32
_LOOPBACK = re.compile(r"http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(/.*)?", re.IGNORECASE | re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4094}[\x21-\x7e])?", re.ASCII)
_NAMED = re.compile(r"\$\{([^}]*)\}")
# httpx sets these itself, and a second one would be another request than the one that was checked
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "content-type"})
_PASSING = frozenset({408, 425})
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    QaError,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an agent is reached, ready to send: secrets stand in the headers by now, and in no text that is shown."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Replied:
    """A successful answer, and how long it took from the request on."""

    content: bytes
    took_s: float


class AgentWeb:
    """The HTTP clients of a process towards agents under test. Threads share it."""

    def __init__(
        self,
        *,
        transport: httpx.BaseTransport,
        loopback: httpx.BaseTransport | None,
        deadline: Callable[[float], AbstractContextManager[None]],
        secret: Callable[[str], str],
    ) -> None:
        """`loopback` is for URLs that name this machine in so many words, None where these are not allowed.

        `deadline` bounds all that this thread does on its connections within it; `secret` gives the value of an
        environment variable that a header names, or raises InvalidInput.
        """
        self._client = _client(transport)
        self._loopback = _client(loopback) if loopback is not None else None
        self._deadline = deadline
        self._secret = secret

    def endpoint(self, url: str, headers: Mapping[str, object]) -> Endpoint:
        """An endpoint with its secrets filled in. Raises InvalidInput, which names the header and quotes no value."""
        if len(headers) > _MAX_HEADERS:
            raise InvalidInput("headers", f"has {len(headers)} entries", f"Write at most {_MAX_HEADERS}")
        return Endpoint(url, dict(self._header(name, value) for name, value in headers.items()))

    def post(
        self, endpoint: Endpoint, body: bytes, *, within_s: float, headers: Mapping[str, str]
    ) -> Replied | Failure:
        """The answer to a JSON body; `within_s` seconds from the name server to its last byte."""
        began = time.monotonic()
        client = self._loopback if self._loopback is not None and _LOOPBACK.fullmatch(endpoint.url) else self._client
        sent = {**endpoint.headers, **headers, "content-type": "application/json"}
        try:
            with self._deadline(within_s):
                request = client.build_request("POST", endpoint.url, content=body, headers=sent)
                response = client.send(request, stream=True)
                try:
                    failure = _of_status(response)
                    content = b"" if failure else _whole(response)
                finally:
                    response.close()
        except _FAULTS as error:
            return _of_error(error)
        if failure is not None:
            return failure
        if content is None:
            return unreadable("agent_reply_too_long", f"is longer than {MAX_REPLY_BYTES // 1024} KiB")
        return Replied(content, time.monotonic() - began)

    def close(self) -> None:
        """Close what is kept alive."""
        self._client.close()
        if self._loopback is not None:
            self._loopback.close()

    def _header(self, name: str, value: object) -> tuple[str, str]:
        at = f"headers.{name[:64]}"
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
            raise InvalidInput("headers", "holds a name that can't be set", "Name a header such as authorization")
        if not isinstance(value, str):
            raise InvalidInput(at, "is no text", "Write a text; a secret as ${QA_AGENT_SECRET_NAME}")
        filled = _NAMED.sub(lambda found: self._secret(found[1]), value)
        if not _HEADER_VALUE.fullmatch(filled):
            raise InvalidInput(at, "can't be sent", "Write one line of printable ASCII")
        return name.lower(), filled


def unreadable(code: str, problem: str) -> Failure:
    """An answer came and can't be used; `problem` quotes nothing of it."""
    return Failure(FailureKind.UNREADABLE, code, f"The agent's reply {problem}.")


def timed_out(within_s: float) -> Failure:
    """The agent had its time."""
    return Failure(FailureKind.TRANSIENT, "agent_timeout", f"The agent did not reply within {within_s:g} s.")


def _client(transport: httpx.BaseTransport) -> httpx.Client:
    client = httpx.Client(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None),  # the deadline bounds every wait
        headers={"user-agent": "qa-worker", "accept": "application/json", "accept-encoding": "identity"},
    )
    # One run must not be recognised by what another was given.
    client.cookies.jar.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return client


def _whole(response: httpx.Response) -> bytes | None:
    """The body; None where it is too long."""
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        if len(content) > MAX_REPLY_BYTES:
            return None
    return bytes(content)


def _of_status(response: httpx.Response) -> Failure | None:
    status = response.status_code
    code = f"agent_http_{status}"
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    wait = response.headers.get("retry-after", "")
    wait_s = float(wait[:6]) if wait.isascii() and wait.isdigit() else None
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Failure(FailureKind.RATE_LIMITED, code, "The agent asks for fewer requests.", retry_after_s=wait_s)
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failure(FailureKind.TRANSIENT, code, f"The agent answered HTTP {status}.", retry_after_s=wait_s)
    if status < HTTPStatus.BAD_REQUEST:
        message = f"The agent answered HTTP {status}. Redirects are not followed: write the URL that they lead to."
    elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        message = f"The agent answered HTTP {status}. Check the headers of the agent's target."
    else:
        message = f"The agent answered HTTP {status}. Check the URL and what the agent expects."
    return Failure(FailureKind.REJECTED, code, message)


def _of_error(error: Exception) -> Failure:
    if isinstance(error, InvalidInput):
        message = f"Not sent: {error.problem}. Ops can open networks with QA_AGENT_ALLOWED_NETWORKS."
        return Failure(FailureKind.REJECTED, "agent_refused_url", message)
    if isinstance(error, QaError):
        return Failure(FailureKind.TRANSIENT, "agent_dns", "The name server has no answer for the agent's name.")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Failure(FailureKind.REJECTED, "agent_refused_url", "Not sent: the agent's URL can't be read.")
    if isinstance(error, httpcore.TimeoutException | httpx.TimeoutException):
        return Failure(FailureKind.TRANSIENT, "agent_timeout", "The agent did not reply in time.")
    # names of exception classes are safe to show
    return Failure(FailureKind.TRANSIENT, "agent_connection", f"No connection to the agent ({type(error).__name__}).")
