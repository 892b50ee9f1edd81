"""A hard deadline over a whole exchange with the provider.

A read timeout counts from byte to byte, so a server that drips one byte now and then holds a thread for ever. Here
every read and write on a socket gets at most the time that is left. What it can't bound: resolving a name, and
connecting to a host with several addresses, each of which may take what is left.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

_ends_at: ContextVar[float | None] = ContextVar("claude_deadline", default=None)


class DeadlineReached(httpcore2.TimeoutException):
    """The time for the whole exchange is over."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Everything that this thread sends and receives within the block ends after so many seconds."""
    token = _ends_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining_s() -> float:
    """Seconds that are left, never below 0; infinite outside `limit`."""
    ends_at = _ends_at.get()
    return float("inf") if ends_at is None else max(0.0, ends_at - time.monotonic())


def enforce(client: httpx2.Client) -> None:
    """Make every connection of a new client heed the deadline."""
    transports = (client._transport, *client._mounts.values())  # noqa: SLF001 - no public way to the pools in 2.16
    for transport in transports:
        if isinstance(transport, httpx2.HTTPTransport):
            pool = transport._pool  # noqa: SLF001 - as above
            pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001 - HTTPTransport passes no backend on


def _bounded(timeout: float | None) -> float | None:
    left = remaining_s()
    if left <= 0:
        raise DeadlineReached
    if left == float("inf"):
        return timeout
    return left if timeout is None else min(timeout, left)


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except httpcore2.TimeoutException as error:
        if remaining_s() <= 0:
            raise DeadlineReached from error
        raise


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _told_apart():
            return self._stream.read(max_bytes, _bounded(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _told_apart():
            self._stream.write(buffer, _bounded(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        with _told_apart():
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, _bounded(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        with _told_apart():
            return _Stream(self._backend.connect_tcp(host, port, _bounded(timeout), local_address, socket_options))
