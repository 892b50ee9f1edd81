"""The body of a batch while it grows: compressed, in a temporary file, so that 256 MB of it take no memory."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Self

from qa_worker.adapters.claude.request import body
from qa_worker.application.judging import JudgeRequest
from qa_worker.domain.batch import ProviderBatch
from qa_worker.domain.failure import Failure

MAX_BYTES = 256_000_000
"""256 MB (build-with-claude/batch-processing), taken as millions."""

_HEAD, _BETWEEN, _TAIL = b'{"requests":[', b",", b"]}"
_CHUNK = 256 * 1024
_CACHED = {"type": "ephemeral", "ttl": "1h"}
"""The hits of a batch's items are hours apart: the page on batches advises the longer life."""

Send = Callable[[Iterator[bytes], int], ProviderBatch | Failure]


class SpooledDraft:
    """Implements the port `Draft`."""

    def __init__(self, *, send: Send, max_bytes: int) -> None:
        self._send = send
        self._max_bytes = max_bytes
        self._count = 0
        self._size = len(_HEAD) + len(_TAIL)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        # Requests of one rubric repeat its whole text: a twentieth is left.
        self._writer = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._writer.close()
        self._file.close()

    @property
    def count(self) -> int:
        """See the port."""
        return self._count

    def add(self, custom_id: str, request: JudgeRequest) -> bool:
        """See the port."""
        # As UTF-8: escaped, what isn't English would take up to three times the room.
        item = json.dumps({"custom_id": custom_id, "params": params(request)}, ensure_ascii=False).encode()
        between = _BETWEEN if self._count else b""
        if self._size + len(between) + len(item) > self._max_bytes:
            return False
        self._writer.write(between + item)
        self._size += len(between) + len(item)
        self._count += 1
        return True

    def send(self) -> ProviderBatch | Failure:
        """See the port. Nothing can be added after it."""
        self._writer.close()
        return self._send(self._body(), self._size)

    def _body(self) -> Iterator[bytes]:
        self._file.seek(0)
        yield _HEAD
        with gzip.GzipFile(fileobj=self._file, mode="rb") as items:
            while chunk := items.read(_CHUNK):
                yield chunk
        yield _TAIL


def params(request: JudgeRequest) -> dict[str, Any]:
    """The request as an item of a batch: as a single one, but for how long its static part is cached."""
    made = body(request)
    system = [{**block, "cache_control": _CACHED} for block in made["system"]]
    return {**made, "system": system}
