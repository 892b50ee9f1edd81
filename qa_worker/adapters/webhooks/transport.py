"""Connections that go nowhere but to checked addresses, and never last longer than their deadline.

httpx keeps a timeout for each read and write, which a receiver that sends a byte a second outlasts for ever. Here every
wait is cut to what is left until the deadline of the whole exchange, from the name server to the answer's last byte.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx
from httpcore import SOCKET_OPTION

from qa_worker.adapters.webhooks.addresses import Address
from qa_worker.adapters.webhooks.guard import Guard

PIECE = 16 * 1024
"""The most that one read takes from the network."""
_NO_DEADLINE = float("inf")

_until: ContextVar[float] = ContextVar("until", default=_NO_DEADLINE)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """All that this thread does on its connections within the block must be over in so many seconds."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def _left(late: type[Exception], at_most: float | None = None) -> float:
    """Seconds until the deadline, no more than `at_most`. Raises `late` where it has passed."""
    left = min(_until.get() - time.monotonic(), _NO_DEADLINE if at_most is None else at_most)
    if left <= 0:
        raise late("the deadline of the whole exchange has passed")
    return left


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends with the deadline."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._socket = inner.get_extra_info("socket")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(min(max_bytes, PIECE), _left(httpcore.ReadTimeout, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Not the inner `write`, which begins to wait anew with each part that a slow reader takes.
        rest = memoryview(buffer)
        while rest:
            self._socket.settimeout(_left(httpcore.WriteTimeout, timeout))
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(httpcore.ConnectTimeout, timeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _GuardedBackend(httpcore.NetworkBackend):
    """Resolves, checks, and connects to what was checked. TLS still asks for the host's name, and so does HTTP."""

    def __init__(self, guard: Guard, *, connect_timeout_s: float) -> None:
        self._guard = guard
        self._connect_timeout_s = connect_timeout_s
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - ours covers name server and all addresses together
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        with deadline(_left(httpcore.ConnectTimeout, self._connect_timeout_s)):
            addresses = self._guard.addresses(host, port, timeout_s=_left(httpcore.ConnectTimeout))
            return _Stream(self._first(addresses, port, local_address, socket_options or ()))

    def _first(
        self,
        addresses: list[Address],
        port: int,
        local_address: str | None,
        socket_options: Iterable[SOCKET_OPTION],
    ) -> httpcore.NetworkStream:
        """The first address that answers; each gets its share of the time, so that one that is mute stops nobody."""
        for number, address in enumerate(addresses):
            share_s = _left(httpcore.ConnectTimeout) / (len(addresses) - number)
            try:
                return self._sockets.connect_tcp(str(address), port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses) - 1:
                    raise
        raise httpcore.ConnectError("no address")


class _Body(httpx.SyncByteStream):
    def __init__(self, content: Any) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield from self._content

    def close(self) -> None:
        self._content.close()


class GuardedTransport(httpx.BaseTransport):
    """What `httpx.Client` sends through. Raises the errors of httpcore, InvalidInput and NotResolved.

    httpx offers no place for a network backend in its own transport, so this one holds the pool itself.
    """

    def __init__(self, guard: Guard, *, connect_timeout_s: float, kept_alive: int, tls: ssl.SSLContext) -> None:
        self._guard = guard
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            # As many as there are threads at work; a thread that has its turn never waits for another's connection.
            max_connections=None,
            max_keepalive_connections=kept_alive,
            keepalive_expiry=_KEPT_ALIVE_S,
            network_backend=_GuardedBackend(guard, connect_timeout_s=connect_timeout_s),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Part of the interface."""
        target = self._guard.check_url(str(request.url))
        url = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=request.url.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                url,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Part of the interface."""
        self._pool.close()


_KEPT_ALIVE_S = 10.0
"""How long an idle connection is kept: as long it may stand for what its name resolved to."""
