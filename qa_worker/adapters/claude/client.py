"""The SDK client: built once per process, with every wait bounded."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import anthropic
import httpx2

from qa_worker.adapters.claude import deadline

API_URL = "https://api.anthropic.com"
_KEEP_ALIVE_S = 30.0
"""An idle connection is kept this long: a new TLS connection costs two round trips. The SDK's default is 5 s."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `read_s` is the wait for the next byte, `total_s` ends the whole call, quick retries included."""

    connect_s: float = 5.0
    read_s: float = 30.0
    pool_s: float = 5.0
    total_s: float = 45.0

    def for_request(self) -> httpx2.Timeout:
        """What one request may still take: the wait for a free connection can't be cut short later."""
        pool_s = min(self.pool_s, deadline.remaining_s())
        return httpx2.Timeout(self.read_s, connect=self.connect_s, pool=pool_s)


class ClientPerProcess:
    """Builds the client at first use, and again in a forked child, which must not share its parent's sockets."""

    def __init__(self, *, api_key: str, base_url: str | None, connections: int) -> None:
        """`base_url` None or empty means the public API. Raises: ValueError for a key that can't be sent."""
        key = api_key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("the Anthropic API key is empty or holds characters that no key has")
        self._api_key = key
        self._base_url = (base_url or "").strip() or API_URL
        self._connections = connections
        self._client: anthropic.Anthropic | None = None
        self._lock = threading.Lock()
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: _call(forget))

    def get(self) -> anthropic.Anthropic:
        """The client of this process."""
        client = self._client
        if client is None:
            with self._lock:
                client = self._client = self._client or self._build()
        return client

    def close(self) -> None:
        """Close the connections; the next `get` builds a new client."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _build(self) -> anthropic.Anthropic:
        http = anthropic.DefaultHttpxClient(
            limits=httpx2.Limits(
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=_KEEP_ALIVE_S,
            ),
            # a redirect would carry a transcript to a host that nobody configured
            follow_redirects=False,
        )
        deadline.enforce(http)
        return anthropic.Anthropic(api_key=self._api_key, base_url=self._base_url, max_retries=0, http_client=http)

    def _forget(self) -> None:
        self._client = None
        self._lock = threading.Lock()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        bound()
