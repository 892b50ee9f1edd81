"""A conversation as chat models take it: messages of two sides in turn, made anew from the history for every reply.

Nothing is kept between two replies, so that another process can play the next turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from qa_worker.domain.fence import as_shown
from qa_worker.domain.interruption import CUT_NOTE
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

CALL_BEGINS = "[the call is connected]"
CUT_OFF = "[the caller interrupted you here and heard nothing of what came after]"
PLATFORM_NOTE = (
    "You are on a telephone call: everything you write is read aloud to the caller. Text in square brackets in the "
    "caller's messages is a note of the telephone system, such as a silence or an interruption; the caller did not say "
    "it. Never write such notes yourself."
)
"""Stands after an agent's own instructions: a voice platform, too, tells the model what its notes are."""
_NO_RESULT = "no result"


class Side(StrEnum):
    """Who a message is from, seen by the model that answers."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back."""

    call_id: str
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message. The user's holds `results`, then `text`; the assistant's `text`, then `calls`, each with an id."""

    side: Side
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said in one message, and the tools that it called in it."""

    text: str
    calls: tuple[ToolCall, ...] = ()


def agent_chat(history: Sequence[Turn], told: str = "") -> tuple[Message, ...]:
    """The conversation as the agent must see it: its own words as far as they were heard, the caller's as it was told.

    The note on a cut turn goes to the user's side, or a model would learn to write such notes itself. The caller's words
    lose what could pass for a tag: they stay words, whatever they say. Sides alternate and the user's comes first; each
    tool call has an id and exactly one result, which stands in the message after it.
    """
    turns = (*history, Turn(Role.CALLER, told)) if told else tuple(history)
    return _alternating(_messages(_with_ids(turns)))


def _with_ids(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The same turns, each call under an id of its own, and each result under that of its call."""
    named = list(turns)
    for number, use in enumerate(Transcript(tuple(turns)).tool_uses()):
        call_id = f"call_{number}"
        calls = named[use.turn].tool_calls
        # the same call object may stand in a turn twice, so the first that has no new id yet is taken
        place = next(place for place, call in enumerate(calls) if call is use.call)
        renamed = (*calls[:place], replace(use.call, id=call_id), *calls[place + 1 :])
        named[use.turn] = replace(named[use.turn], tool_calls=renamed)
        if use.result_turn is not None:
            named[use.result_turn] = replace(named[use.result_turn], tool_call_id=call_id)
    return tuple(named)


def _messages(turns: Sequence[Turn]) -> Iterator[Message]:
    results = {turn.tool_call_id: turn for turn in turns if turn.role is Role.TOOL}
    for turn in turns:
        if turn.role is Role.CALLER:
            yield Message(Side.USER, as_shown(turn.text))
        elif turn.role is Role.AGENT:
            cut = turn.text.endswith(CUT_NOTE)
            yield Message(Side.ASSISTANT, turn.text.removesuffix(CUT_NOTE).strip(), turn.tool_calls)
            if turn.tool_calls:
                yield Message(Side.USER, results=tuple(_result(call, results.get(call.id)) for call in turn.tool_calls))
            if cut:
                yield Message(Side.USER, CUT_OFF)


def _result(call: ToolCall, turn: Turn | None) -> ToolResult:
    if turn is None:
        return ToolResult(call.id or "", _NO_RESULT, is_error=True)
    return ToolResult(call.id or "", turn.text, is_error=turn.is_error is True)


def _alternating(messages: Iterator[Message]) -> tuple[Message, ...]:
    joined: list[Message] = []
    for message in messages:
        if not (message.text or message.calls or message.results):
            continue
        if not joined and message.side is Side.ASSISTANT:
            joined.append(Message(Side.USER, CALL_BEGINS))
        last = joined[-1] if joined else None
        # calls must be followed by their results, so nothing is added to a message after them
        if last is not None and last.side is message.side and not last.calls:
            text = "\n".join(filter(None, (last.text, message.text)))
            joined[-1] = replace(last, text=text, calls=message.calls, results=(*last.results, *message.results))
        else:
            joined.append(message)
    return tuple(joined)
