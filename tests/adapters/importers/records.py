"""Records as senders write them, for the tests of the importers."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from qa_worker.adapters.importers.files import read_calls
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.parse import parse_call
from qa_worker.domain.call import Call
from qa_worker.domain.errors import InvalidInput

LIMITS = Limits()


def a_record(call_id: str = "c-1", **changes: Any) -> dict[str, Any]:
    """A small complete record of our own format."""
    turns = [{"role": "agent", "text": "Hello, how can I help?"}, {"role": "caller", "text": "I need a table."}]
    return {"id": call_id, "agent": {"id": "booking"}, "turns": turns} | changes


def a_chat(*messages: dict[str, Any], **beside: Any) -> dict[str, Any]:
    """An object with chat messages."""
    return {"messages": list(messages) or [{"role": "user", "content": "Hi"}]} | beside


def with_turn(**turn: Any) -> dict[str, Any]:
    """A record with a single turn."""
    return a_record(turns=[turn])


def refused(record: object, *, limits: Limits = LIMITS) -> InvalidInput:
    """The error that this record is refused with."""
    with pytest.raises(InvalidInput) as caught:
        parse_call(record, limits=limits)
    return caught.value


def parsed(record: object, *, limits: Limits = LIMITS) -> Call:
    """The call that this record becomes."""
    return parse_call(record, limits=limits)


def read(data: bytes | str, *, limits: Limits = LIMITS) -> list[Call | InvalidInput]:
    """What a file with this content yields."""
    raw = data.encode() if isinstance(data, str) else data
    return list(read_calls(io.BytesIO(raw), limits=limits, source="calls.json"))


def lines_of(*records: object) -> str:
    """JSONL."""
    return "".join(json.dumps(record) + "\n" for record in records)


def refs(found: list[Call | InvalidInput]) -> list[str]:
    """The ids of the calls among what was found."""
    return [item.ref for item in found if isinstance(item, Call)]


def errors(found: list[Call | InvalidInput]) -> list[InvalidInput]:
    """The errors among what was found."""
    return [item for item in found if isinstance(item, InvalidInput)]
