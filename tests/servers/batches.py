"""The Message Batches endpoints of the local server: create, list, retrieve, cancel, delete, results.

What becomes of an item is scripted by its custom id or its text; faults can be put before any operation. A `Cut` on create
accepts the batch and then drops the connection, so that a client that just tries again would submit it twice.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from tests.servers import plausible
from tests.servers.behaviours import Answer, Cut, Fault

PATH = "/v1/messages/batches"
MAX_REQUESTS = 100_000
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Operation = Literal["create", "list", "retrieve", "cancel", "delete", "results"]
Reply = tuple[int, bytes]
Kind = Literal["succeeded", "errored", "canceled", "expired"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an item: `answer` where it succeeds, the error where it doesn't."""

    kind: Kind = "succeeded"
    answer: Answer = field(default_factory=Answer)
    error_type: str = "api_error"
    message: str = "Internal server error"


@dataclass(slots=True)
class Batch:
    """A submitted batch."""

    id: str
    items: list[Mapping[str, Any]]
    created_at: datetime
    ends_at_s: float
    cancelled_at: datetime | None = None
    ended_at: datetime | None = None
    counts: Counter[str] = field(default_factory=Counter)
    """Of results by their type, once it has ended."""


class BatchesApi:
    """Batches end `ends_after_s` seconds after they were created (0: at the next look; infinite: by `end_all`)."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.ends_after_s = 0.0
        self.cancel_takes_s = 0.0
        self.default = Outcome()
        self.outcomes: dict[str, Outcome] = {}
        self.batches: dict[str, Batch] = {}
        self.calls: Counter[str] = Counter()
        self._rules: list[tuple[str, Outcome]] = []
        self._faults: dict[str, deque[Fault | Cut]] = {}
        self._clock = clock

    def when(self, contains: str, outcome: Outcome) -> None:
        """Items whose user text contains this end so; a custom id in `outcomes` goes before."""
        self._rules.append((contains, outcome))

    def fail(self, operation: Operation, *faults: Fault | Cut) -> None:
        """The next calls of an operation fail so: a fault before anything is done, a cut after it."""
        self._faults.setdefault(operation, deque()).extend(faults)

    def end_all(self) -> None:
        """Every batch ends now."""
        for batch in self.batches.values():
            batch.ends_at_s = min(batch.ends_at_s, self._clock())

    def clear(self) -> None:
        """Forget batches, outcomes, rules and faults."""
        for kept in (self.batches, self.outcomes, self.calls, self._rules, self._faults):
            kept.clear()
        self.ends_after_s = self.cancel_takes_s = 0.0
        self.default = Outcome()

    def handle(self, method: str, target: str, content: bytes, *, base_url: str) -> Fault | tuple[Cut | None, Reply]:
        """The reply to a request under `PATH`, and where to cut it; or a fault."""
        url = urlsplit(target)
        operation, batch_id = _operation(method, url.path)
        if operation is None:
            return _not_found(target)
        self.calls[operation] += 1
        waiting = self._faults.get(operation)
        fault = waiting.popleft() if waiting else None
        if isinstance(fault, Fault):
            return fault
        batch = self.batches.get(batch_id)
        if batch is None and operation not in ("create", "list"):
            return _not_found(batch_id)
        reply = self._done(operation, batch, content=content, query=parse_qs(url.query), base_url=base_url)
        return reply if isinstance(reply, Fault) else (fault, reply)

    def _done(
        self,
        operation: Operation,
        batch: Batch | None,
        *,
        content: bytes,
        query: Mapping[str, list[str]],
        base_url: str,
    ) -> Fault | Reply:
        if operation == "create":
            return self._create(json.loads(content), base_url)
        if batch is None:
            return self._list(query, base_url)
        self._settle(batch)
        match operation:
            case "cancel":
                return self._cancel(batch, base_url)
            case "delete":
                return self._delete(batch)
            case "results":
                return self._results(batch)
        return _json(self._shown(batch, base_url))

    def _create(self, body: Mapping[str, Any], base_url: str) -> Fault | Reply:
        items = body["requests"]
        problem = _problem(items)
        if problem is not None:
            return Fault("invalid_batch", 400, "invalid_request_error", problem)
        number = len(self.batches) + 1
        batch = Batch(
            id=f"msgbatch_{number:020d}",
            items=items,
            created_at=datetime.now(UTC),
            ends_at_s=self._clock() + self.ends_after_s,
        )
        self.batches[batch.id] = batch
        return _json(self._shown(batch, base_url))

    def _list(self, query: Mapping[str, list[str]], base_url: str) -> Reply:
        ids = list(reversed(self.batches))
        limit = int(query.get("limit", ["20"])[0])
        if "after_id" in query:
            ids = ids[ids.index(query["after_id"][0]) + 1 :]
            page, more = ids[:limit], len(ids) > limit
        elif "before_id" in query:
            ids = ids[: ids.index(query["before_id"][0])]
            page, more = ids[-limit:], len(ids) > limit
        else:
            page, more = ids[:limit], len(ids) > limit
        for batch_id in page:
            self._settle(self.batches[batch_id])
        data = [self._shown(self.batches[batch_id], base_url) for batch_id in page]
        ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
        return _json({"data": data, "has_more": more, **ends})

    def _cancel(self, batch: Batch, base_url: str) -> Fault | Reply:
        if batch.ended_at is not None:
            return Fault("ended", 400, "invalid_request_error", "The batch has ended.")
        if batch.cancelled_at is None:
            batch.cancelled_at = datetime.now(UTC)
            batch.ends_at_s = min(batch.ends_at_s, self._clock() + self.cancel_takes_s)
        return _json(self._shown(batch, base_url))

    def _delete(self, batch: Batch) -> Fault | Reply:
        if batch.ended_at is None:
            return Fault("not_ended", 400, "invalid_request_error", "The batch has not ended.")
        del self.batches[batch.id]
        return _json({"id": batch.id, "type": "message_batch_deleted"})

    def _results(self, batch: Batch) -> Fault | Reply:
        if batch.ended_at is None:
            return Fault("not_ended", 404, "not_found_error", "The batch has no results yet.")
        lines = [
            json.dumps({"custom_id": item["custom_id"], "result": self._result(batch, item)}) for item in batch.items
        ]
        random.Random(batch.id).shuffle(lines)  # noqa: S311 - the order is of no use to anyone, which is the point
        return 200, "".join(f"{line}\n" for line in lines).encode()

    def _settle(self, batch: Batch) -> None:
        if batch.ended_at is None and self._clock() >= batch.ends_at_s:
            batch.ended_at = datetime.now(UTC)
            batch.counts = Counter(self._result(batch, item)["type"] for item in batch.items)

    def _outcome(self, batch: Batch, item: Mapping[str, Any]) -> Outcome:
        if batch.cancelled_at is not None:
            return Outcome("canceled")
        scripted = self.outcomes.get(item["custom_id"])
        if scripted is not None:
            return scripted
        text = plausible.user_text(item["params"])
        return next((outcome for contains, outcome in self._rules if contains in text), self.default)

    def _result(self, batch: Batch, item: Mapping[str, Any]) -> dict[str, Any]:
        outcome, params = self._outcome(batch, item), item["params"]
        if outcome.kind == "succeeded":
            refused = _late_problem(params)
            if refused is not None:
                return _errored("invalid_request_error", refused)
            message_id = f"msg_{item['custom_id']}"
            message = plausible.message(params, outcome.answer, message_id=message_id, cache="none")
            message["usage"]["service_tier"] = "batch"
            return {"type": "succeeded", "message": message}
        return _errored(outcome.error_type, outcome.message) if outcome.kind == "errored" else {"type": outcome.kind}

    def _shown(self, batch: Batch, base_url: str) -> dict[str, Any]:
        ended = batch.ended_at is not None
        status = "ended" if ended else "canceling" if batch.cancelled_at is not None else "in_progress"
        # nothing but `processing` is counted before the end
        kinds = ("succeeded", "errored", "canceled", "expired")
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {
                "processing": 0 if ended else len(batch.items),
                **{kind: batch.counts[kind] for kind in kinds},
            },
            "created_at": _time(batch.created_at),
            "expires_at": _time(batch.created_at + timedelta(hours=24)),
            "ended_at": _time(batch.ended_at),
            "cancel_initiated_at": _time(batch.cancelled_at),
            "archived_at": None,
            "results_url": f"{base_url}{PATH}/{batch.id}/results" if ended else None,
        }


def _operation(method: str, path: str) -> tuple[Operation | None, str]:
    _, _, rest = path.partition(PATH)
    batch_id, _, action = rest.strip("/").partition("/")
    by_route: Mapping[tuple[str, bool, str], Operation] = {
        ("POST", False, ""): "create",
        ("GET", False, ""): "list",
        ("GET", True, ""): "retrieve",
        ("POST", True, "cancel"): "cancel",
        ("DELETE", True, ""): "delete",
        ("GET", True, "results"): "results",
    }
    return by_route.get((method, bool(batch_id), action)), batch_id


def _problem(items: list[Mapping[str, Any]]) -> str | None:
    """Why a batch is refused at once; parameters are checked late."""
    if not 1 <= len(items) <= MAX_REQUESTS:
        return f"requests: between 1 and {MAX_REQUESTS} are allowed"
    ids = [item["custom_id"] for item in items]
    if len(set(ids)) < len(ids):
        return "requests: custom_id must be unique"
    bad = next((custom_id for custom_id in ids if not _CUSTOM_ID.fullmatch(custom_id)), None)
    return None if bad is None else "requests: custom_id must match ^[a-zA-Z0-9_-]{1,64}$"


def _late_problem(params: Mapping[str, Any]) -> str | None:
    if params.get("stream") or "speed" in params or params.get("max_tokens") == 0 or "fallbacks" in params:
        return "stream, speed, fallbacks and max_tokens: 0 are not supported in batches"
    return plausible.problem(params)


def _errored(error_type: str, message: str) -> dict[str, Any]:
    error = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": None}
    return {"type": "errored", "error": error}


def _not_found(what: str) -> Fault:
    return Fault("not_found", 404, "not_found_error", f"Not found: {what}")


def _json(value: Any) -> Reply:
    return 200, json.dumps(value).encode()


def _time(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"
