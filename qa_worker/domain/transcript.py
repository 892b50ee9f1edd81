"""A finished conversation, turn by turn, as every other part of the system sees it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonObject = Mapping[str, Any]


class Role(StrEnum):
    """Who a turn belongs to."""

    CALLER = "caller"
    AGENT = "agent"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool by the agent.

    `malformed` holds the raw text when the agent produced arguments that are no JSON object: that is the agent's
    fault and evidence about it, not bad input. `arguments` is empty then.
    """

    name: str
    arguments: JsonObject
    id: str | None = None
    malformed: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. Times are seconds from the start of the call; a text turn of a chat has none.

    A tool turn's `text` is the tool's result, as text (JSON where the tool gave JSON); `is_error` is what the platform
    said of it, or None where it said nothing.
    """

    role: Role
    text: str
    start_s: float | None = None
    end_s: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    is_error: bool | None = None

    @property
    def timed(self) -> bool:
        """True where both ends of the turn are known."""
        return self.start_s is not None and self.end_s is not None


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call with its result: the turn that called, the turn that answered (None where none did)."""

    turn: int
    call: ToolCall
    result_turn: int | None
    result: Turn | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The turns of one call, in order. A turn's number is its index, from 0."""

    turns: tuple[Turn, ...] = field(default=())

    def __iter__(self) -> Iterator[Turn]:
        return iter(self.turns)

    def __len__(self) -> int:
        return len(self.turns)

    def spoken(self) -> Iterator[tuple[int, Turn]]:
        """Turns that were heard: caller and agent with some text, each with its number."""
        return ((i, turn) for i, turn in enumerate(self.turns) if turn.role is not Role.TOOL and turn.text.strip())

    def tool_uses(self) -> tuple[ToolUse, ...]:
        """Each tool call beside its result.

        Results are matched by `tool_call_id`; where ids are missing, each result belongs to the oldest call that
        still waits for one.
        """
        uses: list[ToolUse] = []
        waiting = _Waiting()
        for number, turn in enumerate(self.turns):
            for call in turn.tool_calls:
                waiting.add(len(uses), call.id)
                uses.append(ToolUse(number, call, None, None))
            slot = waiting.take(turn.tool_call_id) if turn.role is Role.TOOL else None
            if slot is not None:
                uses[slot] = ToolUse(uses[slot].turn, uses[slot].call, number, turn)
        return tuple(uses)


class _Waiting:
    """The places of calls without a result, the oldest first: by their ids, and all of them."""

    def __init__(self) -> None:
        self._by_id: dict[str | None, deque[int]] = {}
        self._all: deque[int] = deque()
        self._taken: set[int] = set()

    def add(self, place: int, call_id: str | None) -> None:
        self._by_id.setdefault(call_id, deque()).append(place)
        self._all.append(place)

    def take(self, result_id: str | None) -> int | None:
        """The call that this result belongs to; None where none is left for it."""
        queues = (self._all,) if result_id is None else (self._by_id.get(result_id), self._by_id.get(None))
        for queue in queues:
            while queue:
                place = queue.popleft()
                if place not in self._taken:
                    self._taken.add(place)
                    return place
        return None


def to_json(transcript: Transcript) -> list[dict[str, Any]]:
    """The stored form of a transcript; `from_json` is its inverse."""
    return [_turn_to_json(turn) for turn in transcript]


def from_json(rows: Sequence[Mapping[str, Any]]) -> Transcript:
    """A transcript from its stored form."""
    return Transcript(tuple(_turn_from_json(row) for row in rows))


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    row: dict[str, Any] = {"role": turn.role.value, "text": turn.text}
    for name in ("start_s", "end_s", "tool_call_id", "is_error"):
        value = getattr(turn, name)
        if value is not None:
            row[name] = value
    if turn.tool_calls:
        row["tool_calls"] = [_tool_call_to_json(call) for call in turn.tool_calls]
    return row


def _tool_call_to_json(call: ToolCall) -> dict[str, Any]:
    row: dict[str, Any] = {"id": call.id, "name": call.name, "arguments": dict(call.arguments)}
    if call.malformed is not None:
        row["malformed"] = call.malformed
    return row


def _turn_from_json(row: Mapping[str, Any]) -> Turn:
    calls = tuple(
        ToolCall(name=call["name"], arguments=call["arguments"], id=call.get("id"), malformed=call.get("malformed"))
        for call in row.get("tool_calls", ())
    )
    return Turn(
        role=Role(row["role"]),
        text=row["text"],
        start_s=row.get("start_s"),
        end_s=row.get("end_s"),
        tool_calls=calls,
        tool_call_id=row.get("tool_call_id"),
        is_error=row.get("is_error"),
    )


def canonical(value: Any) -> str:
    """One text for one JSON value, whatever the order of its keys: for comparing and fingerprints."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
