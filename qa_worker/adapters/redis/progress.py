"""Progress of runs as events: a capped stream for each suite run, which goes by itself.

The rows are the truth. So an event that can't be sent is dropped at once, and nobody waits for a server that is away.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from qa_worker.application.running import ProgressEvent
from qa_worker.domain.run import RunState

log = structlog.get_logger(__name__)

TIMEOUT_S = 0.5
RETRY_AFTER_S = 3.0
_KEPT = 1_000
_GONE_AFTER_S = 3_600
_AT_ONCE = 500
_CONNECTIONS = 64
_READ_S = 20.0
"""For a read that waits on the server, which takes half of it at most."""


class RedisProgress:
    """Implements the ports `Progress` and `Feed`. Thread-safe; connects with the first event.

    The first event that can't be sent is logged; for `RETRY_AFTER_S` after it none is tried.
    """

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=_CONNECTIONS,
            decode_responses=True,
        )
        self._url = url
        self._lock = threading.Lock()
        self._away = False
        self._again_at = 0.0

    def publish(self, event: ProgressEvent) -> None:
        """See the port."""
        with self._lock:
            if self._away and time.monotonic() < self._again_at:
                return
        key = _key(event.suite_run_id)
        try:
            pipe = self._client.pipeline(transaction=False)
            pipe.xadd(key, {"event": _to_json(event)}, maxlen=_KEPT, approximate=True)
            pipe.expire(key, _GONE_AFTER_S)
            pipe.execute()
        except RedisError as error:
            self._note(away=True, fault=type(error).__name__)
        else:
            self._note(away=False)

    @contextmanager
    def open(self, suite_run_id: uuid.UUID) -> Iterator[_Watching]:
        """See the port."""
        client = Redis.from_url(
            self._url, socket_timeout=_READ_S, socket_connect_timeout=TIMEOUT_S, decode_responses=True
        )
        try:
            yield _Watching(client, _key(suite_run_id))
        finally:
            client.close()

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _note(self, *, away: bool, fault: str = "") -> None:
        with self._lock:
            changed, self._away = self._away != away, away
            self._again_at = time.monotonic() + RETRY_AFTER_S
        if changed and away:
            log.warning("progress_not_published", fault=fault)
        elif changed:
            log.info("progress_published_again")


class _Watching:
    """Implements the port `Watching` by reading the stream from where it stood."""

    def __init__(self, client: Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._last = self._newest()

    def wait(self, timeout_s: float) -> Sequence[ProgressEvent]:
        """See the port."""
        try:
            block_ms = max(1, round(min(timeout_s, _READ_S / 2) * 1000))
            found: Any = self._client.xread({self._key: self._last}, count=_AT_ONCE, block=block_ms)
        except RedisError:
            time.sleep(min(timeout_s, RETRY_AFTER_S))  # the rows are looked at meanwhile
            return []
        entries = found[0][1] if found else []
        if entries:
            self._last = entries[-1][0]
        return [event for _, fields in entries if (event := _from_json(fields.get("event", ""))) is not None]

    def _newest(self) -> str:
        try:
            newest: Any = self._client.xrevrange(self._key, count=1)
        except RedisError:
            return "$"
        return newest[0][0] if newest else "0"


def _key(suite_run_id: uuid.UUID) -> str:
    return f"qa:progress:{suite_run_id}"


def _to_json(event: ProgressEvent) -> str:
    return json.dumps(
        {
            "run": str(event.run_id),
            "suite": str(event.suite_run_id),
            "state": event.state.value,
            "turns": event.turns,
            "clock_s": round(event.clock_s, 3),
        }
    )


def _from_json(text: str) -> ProgressEvent | None:
    """The event, or None where a newer version wrote what this one can't read."""
    try:
        read = json.loads(text)
        run_id, suite_run_id = uuid.UUID(read["run"]), uuid.UUID(read["suite"])
        return ProgressEvent(run_id, suite_run_id, RunState(read["state"]), int(read["turns"]), float(read["clock_s"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
