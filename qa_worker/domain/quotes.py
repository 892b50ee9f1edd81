"""Whether somebody really said what a finding quotes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from qa_worker.domain.folding import rough, without_apostrophes, words
from qa_worker.domain.transcript import ToolCall, Transcript, Turn, canonical

_GAP = re.compile(r"\[\s*(?:\.{3}|…)\s*\]|\.{3,}|…")
_ARGUMENTS = json.JSONEncoder(ensure_ascii=False, default=str)
_FEWEST_CHARACTERS = 8
_SHORTEST_CODE = 4
_SCRIPTS_WITHOUT_BLANKS = "\u2e80"  # Chinese, Japanese, Korean start here: a quote may begin inside a "word"


def find_quote(transcript: Transcript, quote: str, *, turn: int | None) -> int | None:
    """The number of the turn that contains the quote, or None when no turn does.

    The claimed `turn` comes first, then the nearest one, the earlier of two. Case, spacing and punctuation don't count;
    "..." inside a quote stands for left-out words; the last word may be cut. Tool calls can be quoted as
    `name(arguments)` or by their arguments, tool turns by their result. A quote of fewer than 8 letters ("the") proves
    nothing and is None, unless the claimed turn consists of nothing else, or it is a code ("21A7"). One pass over the text.
    """
    parts = [folded for part in _GAP.split(quote) if (folded := words(part))]
    if not parts:
        return None
    claimed = turn if turn is not None and 0 <= turn < len(transcript) else None
    if not _telling(parts):
        whole = claimed is not None and words(transcript.turns[claimed].text) == " ".join(parts)
        return claimed if whole else None
    rarest = without_apostrophes(max(" ".join(parts).split(), key=len))
    numbers = _nearest_first(len(transcript), claimed)
    return next((number for number in numbers if _holds(transcript.turns[number], parts, rarest)), None)


def _telling(parts: Sequence[str]) -> bool:
    letters = "".join(parts).replace(" ", "")
    is_code = " " not in parts[0] and any(map(str.isdigit, letters))
    return len(letters) >= (_SHORTEST_CODE if is_code else _FEWEST_CHARACTERS)


def _nearest_first(count: int, claimed: int | None) -> Iterator[int]:
    if claimed is None:
        yield from range(count)
        return
    yield claimed
    for distance in range(1, count):
        yield from (number for number in (claimed - distance, claimed + distance) if 0 <= number < count)


def _holds(turn: Turn, parts: Sequence[str], rarest: str) -> bool:
    """Whether the turn holds the parts in order; texts without their longest word aren't folded at all."""
    said = rarest in rough(turn.text) and _in_order(words(turn.text), parts)
    return said or any(_called(call, parts, rarest) for call in turn.tool_calls)


def _called(call: ToolCall, parts: Sequence[str], rarest: str) -> bool:
    """A tool call may be quoted with its arguments in their own order, or in the order of their names: the same words."""
    written = f"{call.name}({call.malformed or _ARGUMENTS.encode(dict(call.arguments))})"
    if rarest not in rough(written):
        return False
    return _in_order(words(f"{written} {call.name}({canonical(call.arguments)})"), parts)


def _in_order(text: str, parts: Sequence[str]) -> bool:
    place, padded = 0, f" {text}"
    for part in parts:
        wanted = part if part[0] >= _SCRIPTS_WITHOUT_BLANKS else f" {part}"
        found = padded.find(wanted, place)
        if found < 0:
            return False
        place = found + len(wanted)
    return True
