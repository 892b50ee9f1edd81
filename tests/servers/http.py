"""As much of HTTP/1.1 as the local servers need, and little CPU: keep-alive, one request at a time on a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Request:
    """Header names are in lower case; `connection` numbers the connections from 1."""

    method: str
    target: str
    headers: Mapping[str, str]
    content: bytes
    connection: int


class Connection(asyncio.Protocol):
    """One client. `handle` is called with each request, and must see to it that `reply` or `close` follows."""

    def __init__(self, number: int, handle: Callable[[Request, Connection], None]) -> None:
        self.number = number
        self.lost = asyncio.get_running_loop().create_future()
        self._handle = handle
        self._buffer = bytearray()
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of the protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of the protocol."""
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of the protocol."""
        if not self.lost.done():
            self.lost.set_result(None)

    def write(self, data: bytes) -> None:
        """A part of a reply."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def reply(self, whole: bytes) -> None:
        """The whole reply, or the end of one; the connection can take its next request."""
        self.write(whole)
        self._busy = False
        if self._buffer:
            self._next()

    def close(self) -> None:
        """Send what was written, then end the connection."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """End the connection with an RST instead of a goodbye."""
        if self._transport is not None:
            bare = self._transport.get_extra_info("socket")
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _next(self) -> None:
        if self._busy:
            return
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        request_line, *lines = self._buffer[:head_end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body_at = head_end + 4
        end = body_at + int(headers.get("content-length", "0"))
        if len(self._buffer) < end:
            return
        content = bytes(self._buffer[body_at:end])
        del self._buffer[:end]
        method, target = request_line.split(" ")[:2]
        self._busy = True
        self._handle(Request(method, target, headers, content, self.number), self)


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole response."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{head}\r\n".encode("latin-1") + body
