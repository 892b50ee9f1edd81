"""A local receiver of alerts: it verifies signatures, tells who sent what, and can misbehave in every way that counts.

In a test: `with Receiver([secret]) as receiver: ...`, then `receiver.url` is where to send to. For other processes and
benchmarks: `python -m tests.servers.receiver --secret whsec_... --log FILE --slow 9.9` prints its URL and serves until
it is interrupted; each delivery is a JSON line in FILE, and `GET /stats` counts. Requests to `/slow...` take `--slow`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import signal
import ssl
import threading
import time
from base64 import b64decode
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.servers import http
from tests.servers.behaviours import Cut, Drip, Hang
from tests.servers.http import Connection, Request


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, after a while."""

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset instead of an answer."""


Behaviour = Reply | Reset | Hang | Cut | Drip


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it came in. `verified`: its signature is good by one of our secrets. `at` is seconds since 1970."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    verified: bool
    at: float

    @property
    def id(self) -> str:
        """The `webhook-id`."""
        return self.headers.get("webhook-id", "")


class Receiver:
    """The server, on a thread of its own. The queue decides first (each entry once), then the path, then `default`."""

    def __init__(
        self,
        secrets: Sequence[str] = (),
        *,
        default: Behaviour | None = None,
        by_path: Callable[[str], Behaviour | None] = lambda _path: None,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        log: IO[str] | None = None,
    ) -> None:
        """With `secrets`: what isn't signed by one of them gets 401. `tls` makes it an https server."""
        self.default: Behaviour = default or Reply()
        self.deliveries: list[Delivery] = []
        self.connections = 0
        self.in_flight: Counter[str] = Counter()
        self.max_in_flight: Counter[str] = Counter()
        self._secrets = tuple(secrets)
        self._by_path = by_path
        self._tls = tls
        self._port = port
        self._log = log
        self._queue: deque[Behaviour] = deque()
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/hook"

    @property
    def port(self) -> int:
        """Its port on the loopback interface."""
        return self._port

    def then(self, *behaviours: Behaviour) -> Self:
        """The next requests get these, one each."""
        self._queue.extend(behaviours)
        return self

    def start(self) -> Self:
        """Listen; after `stop`, on the same port again. Returns when connections are accepted."""
        self._ready.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="receiver", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the receiver did not start")
        return self

    def stop(self) -> None:
        """Drop all connections and end the thread: from now on connections are refused."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # A client that hangs up in the middle of a handshake is what some tests are about.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        server = await self._loop.create_server(self._connect, "127.0.0.1", self._port, backlog=1024, ssl=self._tls)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._open:
            connection.abort()
        if self._open:
            # One whose handshake failed was never a connection, and is never lost.
            await asyncio.wait([connection.lost for connection in self._open], timeout=0.2)

    def _connect(self) -> Connection:
        self.connections += 1
        connection = Connection(self.connections, self._handle)
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    def _handle(self, request: Request, connection: Connection) -> None:
        if request.method == "GET":
            counts = {"deliveries": len(self.deliveries), "max_in_flight": dict(self.max_in_flight)}
            connection.reply(http.response(200, json.dumps(counts).encode()))
            return
        delivery = Delivery(request.target, request.headers, request.content, self._verified(request), time.time())
        self.deliveries.append(delivery)
        if self._log is not None:
            line = {"id": delivery.id, "path": delivery.path, "verified": delivery.verified, "at": delivery.at}
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()
        self.in_flight[request.target] += 1
        self.max_in_flight[request.target] = max(self.max_in_flight[request.target], self.in_flight[request.target])
        behaviour = self._decide(delivery)
        task = asyncio.create_task(self._act(behaviour, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self.in_flight.subtract([request.target]))

    def _decide(self, delivery: Delivery) -> Behaviour:
        if self._secrets and not delivery.verified:
            return Reply(401, b"the signature is not good")
        if self._queue:
            return self._queue.popleft()
        return self._by_path(delivery.path) or self.default

    async def _act(self, behaviour: Behaviour, connection: Connection) -> None:
        match behaviour:
            case Reply(after_s=after_s):
                if after_s:
                    await asyncio.wait([connection.lost], timeout=after_s)
                connection.reply(http.response(behaviour.status, behaviour.body, behaviour.headers))
            case Hang():
                await connection.lost
            case Reset():
                connection.reset()
            case Cut():
                whole = http.response(200, b"ok" * 100)
                connection.write(whole[: {"nothing": 0, "headers": 20, "body": len(whole) - 50}[behaviour.where]])
                connection.close()
            case Drip():
                await _drip(behaviour, connection)

    def _verified(self, request: Request) -> bool:
        return any(_is_good(secret, request) for secret in self._secrets)


async def _drip(drip: Drip, connection: Connection) -> None:
    """Begins an answer, and goes on for as long as anybody listens."""
    connection.write(b"HTTP/1.1 200 OK\r\n")
    if drip.where == "body":
        connection.write(b"content-length: 1000000\r\n\r\n")
    while not connection.lost.done():
        connection.write(b"x-more: y\r\n" if drip.where == "headers" else b"x" * drip.bytes_at_once)
        await asyncio.wait([connection.lost], timeout=drip.every_s)


def _is_good(secret: str, request: Request) -> bool:
    """By the reference library, which knows nothing of ours."""
    try:
        Webhook(secret).verify(request.content, dict(request.headers), json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def old_signature_is_good(secret: str, delivery: Delivery) -> bool:
    """Whether `X-Signature-256` is the HMAC of the body under this secret."""
    key = b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, delivery.body, hashlib.sha256).hexdigest()
    return delivery.headers["x-signature-256"] == f"sha256={expected}"


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A local receiver of alerts.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--secret", action="append", default=[], help="signatures by it are good; may be repeated")
    parser.add_argument("--log", type=Path, help="a file that gets a JSON line for each delivery")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that requests to /slow... take")
    options = parser.parse_args()
    slow = Reply(after_s=options.slow)
    log = options.log.open("a", encoding="utf-8") if options.log else None
    receiver = Receiver(
        options.secret, by_path=lambda path: slow if path.startswith("/slow") else None, port=options.port, log=log
    )
    # Blocked before the thread starts, so that it inherits the mask and the signal reaches sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with receiver:
        print(receiver.url, flush=True)  # noqa: T201 - its whole interface
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
