"""A small receiver of alerts on the loopback interface, for the demo: it checks signatures as any receiver should.

By the text of Standard Webhooks 1.0 and nothing of ours, so that it would notice if we signed in another way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_TOLERANCE_S = 300
_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its `webhook-id`, whether its signature is good, and the status that it was answered with."""

    path: str
    webhook_id: str
    good: bool
    status: int


class Receiver:
    """Listens from the beginning of its block to the end. A path is taken once its secret is known and while it is up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: dict[str, str] = {}
        self._down: set[str] = set()
        self._received: list[Received] = []
        self._server = _Server(self)

    def url(self, path: str) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def expect(self, path: str, secret: str) -> None:
        """Alerts to this path are signed with this secret."""
        with self._lock:
            self._secrets[path] = secret

    def switch(self, path: str, *, up: bool) -> None:
        """A path that is down answers 503."""
        with self._lock:
            (self._down.discard if up else self._down.add)(path)

    def received(self, path: str, *, status: int = 200) -> Sequence[Received]:
        """What came to this path and was answered so."""
        with self._lock:
            return [one for one in self._received if (one.path, one.status) == (path, status)]

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Note a request; the status to answer it with."""
        with self._lock:
            good = is_good(self._secrets.get(path, ""), headers, body)
            status = 503 if path in self._down else 200 if good else 401
            self._received.append(Received(path, headers.get("webhook-id", ""), good, status))
        return status

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def is_good(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures is by this `whsec_` secret, and not too old to be a replay by somebody else."""
    sent_at, message_id = headers.get("webhook-timestamp", ""), headers.get("webhook-id", "")
    if not secret or not sent_at.isdigit() or abs(time.time() - int(sent_at)) > _TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{sent_at}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    given = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(expected, one) for one in given)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Senders keep their connections open; nobody waits for them.
    block_on_close = False

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(min(length, _LARGEST))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.receiver.take(self.path, headers, body))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing: the summary does."""
