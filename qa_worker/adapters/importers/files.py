"""Calls out of a file or a stream, in whichever of the accepted shapes it holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.parse import parse_call
from qa_worker.adapters.importers.problems import WHOLE_FILE, WHOLE_RECORD, shown
from qa_worker.adapters.importers.records import Record, records
from qa_worker.domain.call import Call, fingerprint
from qa_worker.domain.errors import InvalidInput


def read_calls(origin: Path | BinaryIO, *, limits: Limits, source: str) -> Iterator[Call | InvalidInput]:
    """Every call of a file or binary stream, in order, with an InvalidInput in the place of each that can't be accepted.

    The shape is recognised by content: one JSON object, a JSON array of calls or of chat messages, an object with
    `calls`, or JSONL, in UTF-8 with or without a byte order mark. JSONL is streamed line by line. `source` is the name
    that errors carry. Nothing is raised: a file that can't be opened or holds no calls is an InvalidInput too. The same
    call twice comes out twice; an id that returns with another content is an InvalidInput.
    """
    try:
        with _opened(origin) as stream:
            yield from _calls(records(stream, limits=limits), limits, source)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        fix = "Check the path and its permissions"
        yield InvalidInput(field=WHOLE_FILE, problem=f"can't be read: {reason}", fix=fix, source=source)


def _opened(origin: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return origin.open("rb") if isinstance(origin, Path) else nullcontext(origin)


def _calls(found: Iterable[Record | InvalidInput], limits: Limits, source: str) -> Iterator[Call | InvalidInput]:
    first_seen: dict[str, tuple[str, int | None]] = {}
    for record in found:
        if isinstance(record, InvalidInput):
            record.source = source
            yield record
            continue
        try:
            call = parse_call(record.value, limits=limits, source=source, line=record.line)
        except InvalidInput as error:
            error.field = _below(record.path, error.field)
            yield error
            continue
        content = fingerprint(call)
        known, line = first_seen.setdefault(call.ref, (content, record.line))
        yield call if content == known else _conflict(call.ref, record, line, source)


def _conflict(ref: str, record: Record, first_line: int | None, source: str) -> InvalidInput:
    where = "earlier in this file" if first_line is None else f"on line {first_line}"
    problem = f"{shown(ref)} was used {where} for a call with another content"
    field = _below(record.path, "id")
    return InvalidInput(field, problem, "Give each call an id of its own", source=source, line=record.line)


def _below(path: str, field: str) -> str:
    if not path:
        return field
    return path if field == WHOLE_RECORD else f"{path}.{field}"
