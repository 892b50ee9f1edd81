"""The SDK client over aiohttp: one per event loop, every wait and every answer's size bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import aiohttp
import anthropic
import httpx2

API_URL = "https://api.anthropic.com"

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""An answer of 128k tokens, the most there is, has about half a megabyte."""

_KEEP_ALIVE_S = 30.0
"""An idle connection is kept this long: a new TLS connection costs two round trips. The SDK's default is 5 s."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect_s` is for reaching the server, TLS included, `read_s` the wait for the next byte, `pool_s` the
    wait for a free connection; `total_s` ends the whole request.
    """

    connect_s: float = 5.0
    read_s: float = 30.0
    pool_s: float = 5.0
    total_s: float = 45.0


class UnusableBody(Exception):
    """An answer that is too long, or compressed though nobody asked for that: it is not read."""


class CutBody(Exception):
    """The connection broke in the middle of a successful answer, which may be billed."""


class Client:
    """The SDK with the connections of one event loop."""

    def __init__(self, sdk: anthropic.AsyncAnthropic, *, connections: int, pool_s: float) -> None:
        self._sdk = sdk
        self._free = asyncio.Semaphore(connections)
        self._pool_s = pool_s
        self._base = str(sdk.base_url).rstrip("/")
        # All said here: the SDK copies each default that it has to fill in, and parses a path that it has to complete.
        self._options: anthropic.RequestOptions = {
            "headers": _JSON,
            "max_retries": 0,
            "timeout": sdk.timeout,
            "params": {},
        }

    async def post(self, path: str, content: bytes) -> httpx2.Response:
        """The successful response to a JSON body, read to its end.

        Raises: httpx2.PoolTimeout; the SDK's errors. The SDK's plain `post` checks status and credentials as its
        `messages.create` does, and leaves out its models and their transformations, a third of the CPU of a call.
        """
        await self._connection()
        try:
            return await self._sdk.post(
                f"{self._base}{path}", cast_to=httpx2.Response, content=content, options=self._options
            )
        finally:
            self._free.release()

    async def _connection(self) -> None:
        # counted here: aiohttp's own limit reports a busy pool and an unreachable server as the same error
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._pool_s):
                await self._free.acquire()
        except TimeoutError:
            raise httpx2.PoolTimeout("no connection became free") from None

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return str(self._sdk.base_url)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sdk.close()


class ClientPerLoop:
    """Builds a client at first use in each event loop. Connections can be shared neither by loops nor by forks."""

    def __init__(self, *, api_key: str, base_url: str | None, timeouts: Timeouts, connections: int) -> None:
        """`base_url` None or empty means the public API. Raises: ValueError for a key that can't be sent."""
        key = api_key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("the Anthropic API key is empty or holds characters that no key has")
        self._api_key = key
        self._base_url = (base_url or "").strip() or API_URL
        self._timeouts = timeouts
        self._connections = connections
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    def get(self) -> Client:
        """The running loop's client. Raises: httpx2.InvalidURL for a base URL that is none."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._build()
        return client

    async def aclose(self) -> None:
        """Close the running loop's connections; the next `get` builds a new client."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()

    def _build(self) -> Client:
        http = anthropic.DefaultAioHttpClient(
            verify=self._tls,
            # a proxy variable meant for something else would see transcripts
            trust_env=False,
            # a redirect would carry a transcript to a host that nobody configured
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=self._connections, keepalive_expiry=_KEEP_ALIVE_S),
            # for aiohttp the pool's timeout covers connecting
            timeout=httpx2.Timeout(
                self._timeouts.read_s, connect=self._timeouts.connect_s, pool=self._timeouts.connect_s
            ),
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_bound]},
        )
        sdk = anthropic.AsyncAnthropic(api_key=self._api_key, base_url=self._base_url, max_retries=0, http_client=http)
        return Client(sdk, connections=self._connections, pool_s=self._timeouts.pool_s)


_JSON = {"content-type": "application/json"}
# aiohttp's errors slip through where the SDK's transport has no word for them.
_BREAKS = (httpx2.TransportError, aiohttp.ClientError, OSError)


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, *, is_answer: bool) -> None:
        self._stream = stream
        self._is_answer = is_answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._stream:
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    raise UnusableBody
                yield chunk
        except _BREAKS as error:
            if self._is_answer and not isinstance(error, httpx2.TimeoutException):
                raise CutBody from error
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    # a few compressed bytes can stand for gigabytes
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnusableBody
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedStream(response.stream, is_answer=response.is_success)
