"""A local server that speaks `POST /v1/messages`, answers by a script and can fail in every way that counts.

In a test: `with MessagesServer() as server: ...`, then `server.url` is the base URL. For other processes and benchmarks:
`python -m tests.servers.messages_api --latency 1.0 --script FILE` prints its URL and serves until it is interrupted;
`GET /stats` tells what was served. A script is JSON: `{"queue": [{"do": "overloaded"}], "rules": [{"contains": "refund",
"do": "rate_limited", "retry_after": "3", "times": 2}], "default": {"do": "answer", "level": 5}}`; what can be done is in
`behaviours.py`.
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

from tests.servers import plausible
from tests.servers.behaviours import Answer, Behaviour, Cut, Drip, Fault, Hang, Raw, from_script, unauthorised

_RATE_LIMITS = {"requests": "1000", "input-tokens": "2000000", "output-tokens": "400000", "tokens": "2400000"}
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error"}


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
    """The server, on a thread of its own. What to do with a request is decided by, in this order: the queue (each entry
    once), the rules, `script`, and `default`.
    """

    def __init__(
        self,
        *,
        script: Callable[[Received], Behaviour | None] | None = None,
        default: Behaviour | None = None,
        latency_s: float = 0.0,
        port: int = 0,
    ) -> None:
        """`latency_s` is what every answer takes; `script` may decide by the request, None leaves it to `default`."""
        self.default: Behaviour = default or Answer()
        self.requests: list[Received] = []
        self.served: Counter[str] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self._script = script
        self._latency_s = latency_s
        self._port = port
        self._queue: deque[Behaviour] = deque()
        self._rules: list[_Rule] = []
        self._cached: set[str] = set()
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

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

    def reset(self) -> None:
        """Forget requests, counts, queue, rules and cached prefixes: the same server, as good as new."""
        for kept in (self.requests, self.served, self._queue, self._rules, self._cached):
            kept.clear()

    def load(self, script: Mapping[str, Any]) -> None:
        """Queue, rules and default from a script file's content."""
        self.enqueue(*map(from_script, script.get("queue", ())))
        for rule in script.get("rules", ()):
            self.when(rule["contains"], from_script(rule), times=rule.get("times"))
        if "default" in script:
            self.default = from_script(script["default"])

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
            "requests": len(self.requests),
            "connections": self._connections,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "served": dict(self.served),
        }

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        task = asyncio.create_task(self._converse(reader, writer, self._connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            while await self._exchange(reader, writer, connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        """One request and its answer; False where the connection is over."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        if not request_line.startswith("POST /v1/messages"):
            writer.write(_response(200, json.dumps(self.stats()).encode()))
            await writer.drain()
            return True
        received = Received(json.loads(content), headers, connection)
        self.requests.append(received)
        behaviour = self._decide(received)
        self.served[behaviour.name] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._act(behaviour, received, reader, writer)
        finally:
            self.in_flight -= 1

    def _decide(self, received: Received) -> Behaviour:
        if not received.headers.get("authorization", "").startswith("Bearer "):
            return unauthorised()
        refused = plausible.problem(received.body)
        if refused is not None:
            return Fault("invalid_request", 400, "invalid_request_error", refused)
        if self._queue:
            return self._queue.popleft()
        chosen = self._by_rule(received.text) or (self._script(received) if self._script is not None else None)
        return chosen or self.default

    def _by_rule(self, text: str) -> Behaviour | None:
        for rule in self._rules:
            if rule.times != 0 and rule.contains in text:
                rule.times = None if rule.times is None else rule.times - 1
                return rule.behaviour
        return None

    async def _act(
        self, behaviour: Behaviour, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        number = len(self.requests)
        match behaviour:
            case Hang():
                await reader.read()
                return False
            case Fault():
                await asyncio.sleep(self._latency_s)
                writer.write(_fault(behaviour, f"req_{number:024d}"))
            case Raw():
                await asyncio.sleep(self._latency_s)
                content_type = {"content-type": behaviour.content_type}
                writer.write(_response(behaviour.status, behaviour.body, {**content_type, **behaviour.headers}))
            case Answer() | Cut() | Drip():
                answer = behaviour if isinstance(behaviour, Answer) else Answer()
                whole = await self._answer(answer, received, number)
                return await _send(whole, behaviour, writer)
        await writer.drain()
        return True

    async def _answer(self, answer: Answer, received: Received, number: int) -> bytes:
        key = plausible.cache_key(received.body)
        cache = "none" if key is None else "read" if key in self._cached else "written"
        await asyncio.sleep(self._latency_s if answer.latency_s is None else answer.latency_s)
        # an entry can be read only once the first response has begun
        self._cached.update([key] if key is not None else [])
        message = plausible.message(received.body, answer, message_id=f"msg_{number:024d}", cache=cache)
        headers = {"request-id": f"req_{number:024d}", **_rate_limit_headers()}
        return _response(200, json.dumps(message).encode(), headers)


async def _send(whole: bytes, behaviour: Answer | Cut | Drip, writer: asyncio.StreamWriter) -> bool:
    body_at = whole.index(b"\r\n\r\n") + 4
    match behaviour:
        case Answer():
            writer.write(whole)
        case Cut(where):
            end = {"nothing": 0, "headers": body_at // 2, "body": (body_at + len(whole)) // 2}[where]
            writer.write(whole[:end])
        case Drip(where, every_s, at_once):
            start = 0 if where == "headers" else body_at
            writer.write(whole[:start])
            for begin in range(start, len(whole), at_once):
                writer.write(whole[begin : begin + at_once])
                await writer.drain()
                await asyncio.sleep(every_s)
    await writer.drain()
    if isinstance(behaviour, Cut):
        writer.close()
        await writer.wait_closed()
    return not isinstance(behaviour, Cut)


def _response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{head}\r\n".encode("latin-1") + body


def _fault(fault: Fault, request_id: str) -> bytes:
    error: dict[str, Any] = {"type": fault.type, "message": fault.message}
    if fault.error_code is not None:
        error["details"] = {"error_code": fault.error_code}
    body = {"type": "error", "error": error, "request_id": request_id}
    headers = {"request-id": request_id, **_rate_limit_headers(), **fault.headers}
    return _response(fault.status, json.dumps(body).encode(), headers)


def _rate_limit_headers() -> dict[str, str]:
    parts = {"reset": "2026-11-23T00:00:00Z"}
    return {
        f"anthropic-ratelimit-{name}-{part}": parts.get(part, limit)
        for name, limit in _RATE_LIMITS.items()
        for part in ("limit", "remaining", "reset")
    }


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A local Messages API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--script", type=Path, help="JSON file with queue, rules and default")
    options = parser.parse_args()
    server = MessagesServer(port=options.port, latency_s=options.latency)
    if options.script is not None:
        server.load(json.loads(options.script.read_text(encoding="utf-8")))
    # blocked before the thread starts, so that it inherits the mask and the signal reaches sigwait
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with server:
        print(server.url, flush=True)  # noqa: T201 - its whole interface
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
