"""A local server that speaks `POST /v1/messages`, answers by a script and can fail in every way that counts.

In a test: `with MessagesServer() as server: ...`, then `server.url` is the base URL. For other processes and benchmarks:
`python -m tests.servers.messages_api --latency 1.0 --script FILE --limits 1000,2000000,400000` prints its URL and serves
until it is interrupted; `GET /stats` tells what was served, also second by second; `POST /control` with a script changes
what is done from now on. A script is JSON: `{"queue": [{"do": "overloaded"}], "rules": [{"contains": "refund", "do":
"rate_limited", "retry_after": "3", "times": 2}], "default": {"do": "answer", "level": 5}, "latency": 0.5, "limits":
{"requests": 1000, "input_tokens": 2000000, "output_tokens": 400000, "burst_s": 10}, "reset": true}`, every part of it
optional; what can be done is in `behaviours.py`. The Message Batches endpoints are in `batches.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.servers import batches, http, plausible
from tests.servers.batches import BatchesApi
from tests.servers.behaviours import Answer, Behaviour, Cut, Drip, Fault, Hang, Raw, from_script, unauthorised
from tests.servers.buckets import Buckets, Limits
from tests.servers.http import Connection, Request
from tests.servers.tally import Tally

_TOLD_LIMITS = {"requests": "1000", "input-tokens": "2000000", "output-tokens": "400000", "tokens": "2400000"}
_TOLD = {
    f"anthropic-ratelimit-{name}-{part}": "2026-11-23T00:00:00Z" if part == "reset" else limit
    for name, limit in _TOLD_LIMITS.items()
    for part in ("limit", "remaining", "reset")
}
"""What is told of limits where none are enforced."""


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came in. Header names are in lower case; `connection` numbers the connections from 1."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    connection: int

    @property
    def text(self) -> str:
        """All that the user messages say: the transcript is in there."""
        return plausible.user_text(self.body)


@dataclass(slots=True)
class _Rule:
    contains: str
    behaviour: Behaviour
    times: int | None


class MessagesServer:
    """The server, on a thread of its own. What to do with a request is decided by, in this order: the key, the shape of
    the request, the queue (each entry once), the rules, `script`, `default`; and where that is an answer, the limits.
    """

    def __init__(
        self,
        *,
        script: Callable[[Received], Behaviour | None] | None = None,
        default: Behaviour | None = None,
        latency_s: float = 0.0,
        port: int = 0,
        limits: Limits | None = None,
        keep: int | None = None,
    ) -> None:
        """`latency_s` is what every answer takes; `script` may decide by the request, None leaves it to `default`.

        `limits` are enforced; None tells limits in headers and enforces none. The first `keep` requests are kept.
        """
        self.default: Behaviour = default or Answer()
        self.requests: list[Received] = []
        self.tally = Tally()
        self.batches = BatchesApi()
        self.in_flight = 0
        self.max_in_flight = 0
        self._script = script
        self._latency_s = latency_s
        self._port = port
        self._buckets = None if limits is None else Buckets(limits)
        self._keep = keep
        self._queue: deque[Behaviour] = deque()
        self._rules: list[_Rule] = []
        self._cached: set[str] = set()
        self._connections = 0
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def served(self) -> Counter[str]:
        """How many requests got what, by the names of behaviours."""
        return self.tally.served

    @property
    def url(self) -> str:
        """The base URL for an SDK."""
        return f"http://127.0.0.1:{self._port}"

    def enqueue(self, *behaviours: Behaviour) -> None:
        """The next requests get these, one each."""
        self._queue.extend(behaviours)

    def when(self, contains: str, behaviour: Behaviour, *, times: int | None = None) -> None:
        """Requests whose user text contains this get the behaviour, the first `times` of them."""
        self._rules.append(_Rule(contains, behaviour, times))

    def limit(self, limits: Limits | None) -> None:
        """Enforce these limits from now on, with full buckets."""
        self._buckets = None if limits is None else Buckets(limits)

    def reset(self) -> None:
        """Forget requests, counts, queue, rules, batches and cached prefixes: the same server, as good as new."""
        for kept in (self.requests, self.tally, self._queue, self._rules, self._cached, self.batches):
            kept.clear()
        self.max_in_flight = self.in_flight

    def load(self, script: Mapping[str, Any]) -> None:
        """Do what a script says."""
        if script.get("reset"):
            self.reset()
        self.enqueue(*map(from_script, script.get("queue", ())))
        for rule in script.get("rules", ()):
            self.when(rule["contains"], from_script(rule), times=rule.get("times"))
        if "default" in script:
            self.default = from_script(script["default"])
        if "limits" in script:
            self.limit(None if script["limits"] is None else Limits(**script["limits"]))
        self._latency_s = script.get("latency", self._latency_s)

    def start(self) -> Self:
        """Listen; after `stop`, on the same port again. Returns when connections are accepted."""
        self._ready.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="messages-api", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the messages server did not start")
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

    def stats(self) -> dict[str, Any]:
        """What was served so far."""
        return {
            "requests": self.tally.requests,
            "connections": self._connections,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "served": dict(self.served),
            "tokens": dict(self.tally.tokens),
            "per_second": self.tally.per_second(),
        }

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(self._connect, "127.0.0.1", self._port, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._open:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in self._open))

    def _connect(self) -> Connection:
        self._connections += 1
        connection = Connection(self._connections, self._handle)
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    def _handle(self, request: Request, connection: Connection) -> None:
        if request.target.startswith(batches.PATH):
            self._handle_batch(request, connection)
        elif request.method == "POST" and request.target.startswith("/v1/messages"):
            self._handle_message(request, connection)
        else:
            if request.target == "/control":
                self.load(json.loads(request.content))
            connection.reply(http.response(200, json.dumps(self.stats()).encode()))

    def _handle_batch(self, request: Request, connection: Connection) -> None:
        if not _has_key(request.headers):
            connection.reply(_fault(unauthorised(), "req_batch", _TOLD))
            return
        done = self.batches.handle(request.method, request.target, request.content, base_url=self.url)
        if isinstance(done, Fault):
            connection.reply(_fault(done, "req_batch", _TOLD))
            return
        cut, (status, body) = done
        whole = http.response(status, body, {"request-id": "req_batch"})
        if cut is None:
            connection.reply(whole)
        else:
            _cut(whole, cut, connection)

    def _handle_message(self, request: Request, connection: Connection) -> None:
        received = Received(json.loads(request.content), request.headers, request.connection)
        if self._keep is None or len(self.requests) < self._keep:
            self.requests.append(received)
        behaviour = self._decide(received)
        key = plausible.cache_key(received.body)
        cache = "none" if key is None else "read" if key in self._cached else "written"
        if self._buckets is not None and isinstance(behaviour, Answer):
            fresh = plausible.input_tokens(received.body, cached=cache == "read")
            behaviour = self._buckets.admit(received.body["model"], input_tokens=fresh) or behaviour
        self.tally.count(behaviour.name)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self._act(_Exchange(received, connection, behaviour, self.tally.requests, key, cache))

    def _decide(self, received: Received) -> Behaviour:
        if not _has_key(received.headers):
            return unauthorised()
        refused = plausible.problem(received.body)
        if refused is not None:
            return Fault("invalid_request", 400, "invalid_request_error", refused)
        if self._queue:
            return self._queue.popleft()
        chosen = self._by_rule(received) or (self._script(received) if self._script is not None else None)
        return chosen or self.default

    def _by_rule(self, received: Received) -> Behaviour | None:
        text = received.text if self._rules else ""
        for rule in self._rules:
            if rule.times != 0 and rule.contains in text:
                rule.times = None if rule.times is None else rule.times - 1
                return rule.behaviour
        return None

    def _act(self, exchange: _Exchange) -> None:
        behaviour = exchange.behaviour
        if isinstance(behaviour, Hang):
            exchange.connection.lost.add_done_callback(lambda _: self._over())
            return
        latency_s = self._latency_s
        if isinstance(behaviour, Fault) and behaviour.name == "limit_reached":
            # the real ones are refused at the door, too
            latency_s = 0.0
        elif isinstance(behaviour, Answer) and behaviour.latency_s is not None:
            latency_s = behaviour.latency_s
        if latency_s > 0:
            asyncio.get_running_loop().call_later(latency_s, self._finish, exchange)
        else:
            self._finish(exchange)

    def _finish(self, exchange: _Exchange) -> None:
        behaviour, connection = exchange.behaviour, exchange.connection
        if isinstance(behaviour, Drip):
            task = asyncio.create_task(_drip(self._answer(exchange), behaviour, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self._over())
            return
        self._over()
        match behaviour:
            case Fault():
                connection.reply(_fault(behaviour, exchange.request_id, self._told(exchange.received)))
            case Raw():
                headers = {"content-type": behaviour.content_type, **behaviour.headers}
                connection.reply(http.response(behaviour.status, behaviour.body, headers))
            case Cut():
                _cut(self._answer(exchange), behaviour, connection)
            case _:
                connection.reply(self._answer(exchange))

    def _over(self) -> None:
        self.in_flight -= 1

    def _answer(self, exchange: _Exchange) -> bytes:
        body = exchange.received.body
        if exchange.key is not None:
            # an entry can be read only once the first response has begun
            self._cached.add(exchange.key)
        answer = exchange.behaviour if isinstance(exchange.behaviour, Answer) else Answer()
        message = plausible.message(body, answer, message_id=f"msg_{exchange.number:024d}", cache=exchange.cache)
        self.tally.count_tokens(message["usage"])
        if self._buckets is not None:
            self._buckets.produced(body["model"], message["usage"]["output_tokens"])
        headers = {"request-id": exchange.request_id, **self._told(exchange.received)}
        return http.response(200, json.dumps(message).encode(), headers)

    def _told(self, received: Received) -> Mapping[str, str]:
        return _TOLD if self._buckets is None else self._buckets.headers(received.body["model"])


@dataclass(frozen=True, slots=True)
class _Exchange:
    received: Received
    connection: Connection
    behaviour: Behaviour
    number: int
    key: str | None
    cache: str

    @property
    def request_id(self) -> str:
        return f"req_{self.number:024d}"


def _has_key(headers: Mapping[str, str]) -> bool:
    return headers.get("authorization", "").startswith("Bearer ")


def _cut(whole: bytes, cut: Cut, connection: Connection) -> None:
    body_at = whole.index(b"\r\n\r\n") + 4
    end = {"nothing": 0, "headers": body_at // 2, "body": (body_at + len(whole)) // 2}[cut.where]
    connection.write(whole[:end])
    connection.close()


async def _drip(whole: bytes, drip: Drip, connection: Connection) -> None:
    start = 0 if drip.where == "headers" else whole.index(b"\r\n\r\n") + 4
    connection.write(whole[:start])
    for begin in range(start, len(whole), drip.bytes_at_once):
        if connection.lost.done():
            return
        connection.write(whole[begin : begin + drip.bytes_at_once])
        await asyncio.sleep(drip.every_s)
    connection.reply(b"")


def _fault(fault: Fault, request_id: str, told: Mapping[str, str]) -> bytes:
    error: dict[str, Any] = {"type": fault.type, "message": fault.message}
    if fault.error_code is not None:
        error["details"] = {"error_code": fault.error_code}
    body = {"type": "error", "error": error, "request_id": request_id}
    headers = {"request-id": request_id, **told, **fault.headers}
    return http.response(fault.status, json.dumps(body).encode(), headers)


def _limits(text: str) -> Limits:
    requests, input_tokens, output_tokens, *burst_s = map(int, text.split(","))
    return Limits(requests, input_tokens, output_tokens, burst_s[0] if burst_s else 60.0)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A local Messages API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--script", type=Path, help="JSON file with a script")
    parser.add_argument(
        "--limits", type=_limits, help="requests,input tokens,output tokens a minute[,seconds of burst]"
    )
    options = parser.parse_args()
    server = MessagesServer(port=options.port, latency_s=options.latency, limits=options.limits, keep=0)
    if options.script is not None:
        server.load(json.loads(options.script.read_text(encoding="utf-8")))
    # blocked before the thread starts, so that it inherits the mask and the signal reaches sigwait
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with server:
        print(server.url, flush=True)  # noqa: T201 - its whole interface
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
