"""The Message Batches API: half price, within a day. Blocking, for the one job that uses it.

Bodies are read as plain JSON, as those of single messages are: see `message`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import anthropic
import httpx2

from qa_worker.adapters.claude.batch_draft import MAX_BYTES, SpooledDraft
from qa_worker.adapters.claude.client import API_URL, MAX_ANSWER_BYTES, UnusableBody
from qa_worker.adapters.claude.faults import FAULTS, bad_response, classify
from qa_worker.adapters.claude.message import read_answer
from qa_worker.application.batching import ItemResult
from qa_worker.application.judging import JudgeAnswer
from qa_worker.domain.batch import Counts, ProviderBatch, ResultKind
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import Rubric

UPLOAD_S = 420.0
"""A batch of 256 MB leaves within this time at 5 Mbit/s. Longer than the lease of who sends it, it must not take."""
RESULTS_S = 300.0
"""What was not read of the results by then is read the next time."""

_PATH = "/v1/messages/batches"
_ANSWER_S = 60.0
_LISTED = 100
_PAGES = 50

# By the type of an item's error (build-with-claude/batch-processing): invalid requests are for us to mend, all others
# may be sent again.
_ERRORS: Mapping[str, tuple[FailureKind, str]] = {
    "invalid_request_error": (
        FailureKind.REJECTED,
        "Claude refused the request as invalid. Check the model, effort and rubric (one with very many criteria?).",
    ),
    "request_too_large": (FailureKind.REJECTED, "The call is too long for one request."),
    "authentication_error": (FailureKind.BLOCKED, "Claude refused the API key. Check ANTHROPIC_API_KEY."),
    "permission_error": (FailureKind.BLOCKED, "The API key may not use this model or workspace."),
    "not_found_error": (FailureKind.BLOCKED, "Claude knows no such model. Check the judge's model."),
    "billing_error": (FailureKind.SPEND_CAP, "The spend limit of the Claude account is reached."),
    "rate_limit_error": (FailureKind.RATE_LIMITED, "The rate limit of the Claude account is reached."),
    "overloaded_error": (FailureKind.OVERLOADED, "Claude is overloaded."),
}
_OTHER_ERROR = (FailureKind.TRANSIENT, "Claude failed at this request of the batch.")


class ClaudeBatches:
    """Implements the port `BatchService`. Its client is built with its first use, after any fork; threads may share it."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str | None = None,
        connect_s: float = 5.0,
        read_s: float = 60.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`base_url` None or empty means the public API; `max_bytes` bounds the body of a batch."""
        self._api_key = api_key.strip()
        self._base_url = (base_url or "").strip() or API_URL
        self._timeout = httpx2.Timeout(read_s, connect=connect_s, pool=connect_s)
        self._max_bytes = max_bytes
        self._sdk: anthropic.Anthropic | None = None

    @contextmanager
    def draft(self) -> Iterator[SpooledDraft]:
        """See the port."""
        with SpooledDraft(send=self._create, max_bytes=self._max_bytes) as draft:
            yield draft

    def since(self, at: datetime) -> list[ProviderBatch] | Failure:
        """See the port. The provider lists the newest first."""
        found: list[ProviderBatch] = []
        after: dict[str, object] = {}
        for _ in range(_PAGES):
            page = self._get(_PATH, params={"limit": _LISTED, **after})
            if isinstance(page, Failure):
                return page
            listed = [_to_batch(one) for one in page["data"]] if isinstance(page.get("data"), list) else [None]
            batches = [one for one in listed if one is not None]
            if len(batches) < len(listed):
                return bad_response()
            found += [one for one in batches if one.created_at >= at]
            if not page.get("has_more") or not batches or batches[-1].created_at < at:
                return found
            after = {"after_id": batches[-1].id}
        return found

    def status(self, provider_id: str) -> ProviderBatch | Failure:
        """See the port."""
        return _read_batch(self._get(f"{_PATH}/{provider_id}"))

    def cancel(self, provider_id: str) -> Failure | None:
        """See the port."""
        try:
            self._client().post(f"{_PATH}/{provider_id}/cancel", cast_to=httpx2.Response)
        except FAULTS as error:
            return classify(error, now_s=time.time())
        return None

    def results(self, provider_id: str) -> Generator[ItemResult | Failure, None, None]:
        """See the port. Not by `results_url`, which may name another host than the one that was configured."""
        try:
            response = self._opened(f"{_PATH}/{provider_id}/results")
            try:
                for line in _lines(_within(response.iter_bytes(), RESULTS_S)):
                    result = _read_result(line)
                    yield result
                    if isinstance(result, Failure):
                        return
            finally:
                response.close()
        except (*FAULTS, UnusableBody) as error:
            yield bad_response() if isinstance(error, UnusableBody) else classify(error, now_s=time.time())

    def read(self, result: ItemResult, *, rubric: Rubric, model: str, provider_id: str) -> JudgeAnswer:
        """See the port. An item has no request id of its own: the batch's stands in its place."""
        return replace(read_answer(result.message, request_id=provider_id, model=model, rubric=rubric), batch=True)

    def close(self) -> None:
        """Close the connections."""
        if self._sdk is not None:
            self._sdk.close()
            self._sdk = None

    def _create(self, body: Iterator[bytes], size: int) -> ProviderBatch | Failure:
        headers = {"content-type": "application/json", "content-length": str(size)}
        try:
            sent = _within(body, UPLOAD_S, late=httpx2.WriteTimeout)
            answer = self._client().post(_PATH, cast_to=httpx2.Response, content=sent, options={"headers": headers})
        except FAULTS as error:
            return classify(error, now_s=time.time())
        return _read_batch(_json(answer))

    def _opened(self, path: str) -> httpx2.Response:
        """A response whose body isn't read yet. The SDK's types promise a stream of events; it gives what was asked for."""
        opened: object = self._client().get(
            path, cast_to=httpx2.Response, stream=True, stream_cls=anthropic.Stream[object]
        )
        if not isinstance(opened, httpx2.Response):
            raise TypeError(f"the SDK gave a {type(opened).__name__} for a response")
        return opened

    def _get(self, path: str, *, params: Mapping[str, object] | None = None) -> dict[str, Any] | Failure:
        try:
            return _json(self._client().get(path, cast_to=httpx2.Response, options={"params": params or {}}))
        except FAULTS as error:
            return classify(error, now_s=time.time())

    def _client(self) -> anthropic.Anthropic:
        if self._sdk is None:
            http = anthropic.DefaultHttpxClient(
                # as for single messages: no proxy that nobody meant, no redirect to a host that nobody configured
                trust_env=False,
                follow_redirects=False,
                timeout=self._timeout,
                headers={"accept-encoding": "identity"},
                event_hooks={"response": [_bound]},
            )
            self._sdk = anthropic.Anthropic(
                api_key=self._api_key, base_url=self._base_url, max_retries=0, timeout=self._timeout, http_client=http
            )
        return self._sdk


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in _within(self._stream, _ANSWER_S):
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise httpx2.DecodingError("the answer is too long")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _bound(response: httpx2.Response) -> None:
    """Results may be as long as they are; every other answer is short, and errors are always."""
    is_results = response.request.url.path.endswith("/results") and response.is_success
    if not is_results and isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _BoundedStream(response.stream)


def _within(
    chunks: Iterable[bytes], seconds: float, *, late: type[httpx2.TimeoutException] = httpx2.ReadTimeout
) -> Iterator[bytes]:
    """The chunks, until the time is over: a peer that trickles along holds nobody for ever."""
    until = time.monotonic() + seconds
    for chunk in chunks:
        if time.monotonic() > until:
            raise late("the time for all of it is over")
        yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of bounded length. Raises UnusableBody."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
        if len(rest) > MAX_ANSWER_BYTES:
            raise UnusableBody
    if rest.strip():
        yield rest


def _json(response: httpx2.Response) -> dict[str, Any] | Failure:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    request_id = response.headers.get("request-id")
    return body if isinstance(body, dict) else bad_response(request_id, status=response.status_code)


def _read_batch(body: dict[str, Any] | Failure) -> ProviderBatch | Failure:
    return body if isinstance(body, Failure) else _to_batch(body) or bad_response()


def _to_batch(body: Any) -> ProviderBatch | None:
    """The batch, or None where this is none."""
    try:
        counts = {name: int(count) for name, count in body["request_counts"].items()}
        kinds = {kind: counts.get(kind, 0) for kind in ("succeeded", "errored", "canceled", "expired")}
        return ProviderBatch(
            id=str(body["id"]),
            created_at=datetime.fromisoformat(body["created_at"]),
            request_count=sum(counts.values()),
            ended=body["processing_status"] == "ended",
            counts=Counts(**kinds),
            expires_at=_time(body.get("expires_at")),
            ended_at=_time(body.get("ended_at")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _read_result(line: bytes) -> ItemResult | Failure:
    try:
        entry = json.loads(line)
        custom_id, result = str(entry["custom_id"]), entry["result"]
        kind = ResultKind(result["type"])
        if kind is ResultKind.SUCCEEDED:
            return ItemResult(custom_id, kind, message=json.dumps(result["message"]).encode())
        failure = _item_failure(result) if kind is ResultKind.ERRORED else None
        return ItemResult(custom_id, kind, failure=failure)
    except (KeyError, TypeError, ValueError, RecursionError):
        # a line that was cut: the lines before it are good
        return bad_response()


def _item_failure(result: Mapping[str, Any]) -> Failure:
    error = (result.get("error") or {}).get("error") or {}
    named = str(error.get("type"))
    kind, message = _ERRORS.get(named, _OTHER_ERROR)
    return Failure(kind, f"batch_{named}" if named in _ERRORS else "batch_error", message)
