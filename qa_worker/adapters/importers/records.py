"""The records of a file or stream, whichever shape it has: what is found before any of them is understood."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from qa_worker.adapters.importers.json_values import not_json
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.parse import is_message
from qa_worker.adapters.importers.problems import WHOLE_FILE, WHOLE_RECORD
from qa_worker.domain.errors import InvalidInput

_BLANKS = re.compile(r"[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"
_ONE_A_LINE = "Write one complete JSON object per line"
_ONE_DOCUMENT = "Write one JSON object, a JSON array of calls, or one JSON object per line"
_UTF8 = "Save the file as UTF-8 JSON or JSONL"


@dataclass(frozen=True, slots=True)
class _Line:
    """`data` is cut at the limit that it was read with, which `whole` says."""

    number: int
    data: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded record, the line that it begins on, and its path inside the document (empty for a whole line)."""

    value: object
    line: int | None
    path: str = ""


def records(stream: BinaryIO, *, limits: Limits) -> Iterator[Record | InvalidInput]:
    """Each record of the stream, or what is wrong with it. JSONL is read line by line, a document as a whole."""
    lines = _lines(stream, limits.max_document_bytes)
    filled = (line for line in lines if line.data.strip())
    first, second = next(filled, None), next(filled, None)
    if first is None:
        yield InvalidInput(field=WHOLE_FILE, problem="is empty", fix=_ONE_DOCUMENT)
    elif second is not None and _is_jsonl(first, second):
        for line in (first, second):
            yield from _on_line(line, limits)
        for line in filled:
            yield from _on_line(line, limits)
    else:
        yield from _in_document(_rest(first, second, stream, limits), first, limits)


def _lines(stream: BinaryIO, limit: int) -> Iterator[_Line]:
    number = 0
    while data := stream.readline(limit + 1):
        number += 1
        whole = len(data) <= limit
        piece = data
        while not whole and piece and not piece.endswith(b"\n"):
            piece = stream.readline(limit + 1)
        yield _Line(number, data.removeprefix(_BOM) if number == 1 else data, whole)


def _is_jsonl(first: _Line, second: _Line) -> bool:
    """True where lines are records, judged by the first two that are not blank.

    A first line that is complete JSON decides it. A broken first line of JSONL is told from the beginning of a
    document that spans lines by what follows: a new object, though nothing was opened that could hold one.
    """
    try:
        json.loads(first.data.decode())
    except (json.JSONDecodeError, UnicodeDecodeError):
        opens = first.data.rstrip().endswith((b"[", b"{", b",", b":"))
        return second.data.lstrip().startswith((b"{", b"[")) and not (opens and first.whole)
    except (ValueError, RecursionError):
        return True
    return True


def _rest(first: _Line, second: _Line | None, stream: BinaryIO, limits: Limits) -> bytes | None:
    """The whole document, its blank lines kept so that line numbers hold; None where it is too large."""
    if second is None:
        return first.data if first.whole else None
    head = first.data.rstrip(b"\n") + b"\n" * (second.number - first.number) + second.data
    room = limits.max_document_bytes - len(head)
    rest = stream.read(room + 1) if room >= 0 and second.whole else b""
    return head + rest if len(rest) <= room else None


def _on_line(line: _Line, limits: Limits) -> Iterator[Record | InvalidInput]:
    if not line.whole or len(line.data) > limits.max_record_bytes:
        yield _too_large(f"is longer than {limits.max_record_bytes:,} bytes", "Shorten the call", line.number)
        return
    try:
        value = json.loads(line.data.decode().rstrip("\r\n"))
    except UnicodeDecodeError as error:
        yield InvalidInput(WHOLE_RECORD, f"is not UTF-8 at byte {error.start + 1}", _UTF8, line=line.number)
    except (ValueError, RecursionError) as error:
        yield not_json(error, fix=_ONE_A_LINE, line=line.number)
    else:
        yield from _expanded(value, line.number)


def _in_document(data: bytes | None, first: _Line, limits: Limits) -> Iterator[Record | InvalidInput]:
    if data is None:
        problem = f"is one JSON document of more than {limits.max_document_bytes:,} bytes"
        yield InvalidInput(field=WHOLE_FILE, problem=problem, fix="Write JSONL, one call per line")
        return
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = first.number + data.count(b"\n", 0, error.start)
        yield InvalidInput(WHOLE_FILE, "is not UTF-8 text", _UTF8, line=line)
        return
    try:
        yield from _elements(text, first.number, limits)
    except (ValueError, RecursionError) as error:
        below = error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        yield not_json(error, fix=_ONE_DOCUMENT, line=first.number + below)


def _elements(text: str, first_line: int, limits: Limits) -> Iterator[Record | InvalidInput]:
    """The records of a document. Those of an array are decoded one by one, each with the line that it begins on."""
    body = text.lstrip()
    start = len(text) - len(body)
    if not body.startswith("["):
        # Where the document spans lines, the path says more about an entry than the line that everything begins on.
        yield from _expanded(json.loads(text), None if "\n" in text.strip() else first_line)
        return
    counted, line = 0, first_line
    for index, (begin, end, value) in enumerate(_array(text, start + 1)):
        if index == 0 and is_message(value):
            yield Record(json.loads(text), first_line)
            return
        line += text.count("\n", counted, begin)
        counted = begin
        if end - begin > limits.max_record_bytes:
            problem = f"takes more than {limits.max_record_bytes:,} characters"
            yield _too_large(problem, "Shorten the call", line, field=f"[{index}]")
        else:
            yield Record(value, line, f"[{index}]")
    if text[start + 1 :].lstrip().startswith("]"):
        yield InvalidInput(field=WHOLE_FILE, problem="holds no calls", fix=_ONE_DOCUMENT)


def _array(text: str, position: int) -> Iterator[tuple[int, int, object]]:
    """Begin, end and value of each element of the array that was opened just before `position`."""
    decoder = json.JSONDecoder()
    position = _skip_blanks(text, position)
    closed = text.startswith("]", position)
    while not closed:
        value, end = decoder.raw_decode(text, position)
        yield position, end, value
        end = _skip_blanks(text, end)
        closed = text.startswith("]", end)
        if not closed and not text.startswith(",", end):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
        position = end if closed else _skip_blanks(text, end + 1)
    if text[position + 1 :].strip():
        raise json.JSONDecodeError("Extra data", text, _skip_blanks(text, position + 1))


def _skip_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _expanded(value: object, line: int | None) -> Iterator[Record | InvalidInput]:
    """The records of one decoded value: itself, the entries of a list of calls, or those of `calls`."""
    if isinstance(value, dict) and isinstance(value.get("calls"), list) and not {"turns", "messages"} & value.keys():
        yield from _entries(value["calls"], "calls", line)
    elif isinstance(value, list) and not (value and is_message(value[0])):
        yield from _entries(value, "", line)
    else:
        yield Record(value, line)


def _entries(values: list[object], path: str, line: int | None) -> Iterator[Record | InvalidInput]:
    if not values:
        yield InvalidInput(field=path or WHOLE_RECORD, problem="holds no calls", fix=_ONE_DOCUMENT, line=line)
    for index, value in enumerate(values):
        yield Record(value, line, f"{path}[{index}]")


def _too_large(problem: str, fix: str, line: int, *, field: str = WHOLE_RECORD) -> InvalidInput:
    return InvalidInput(field=field, problem=problem, fix=fix, line=line)
