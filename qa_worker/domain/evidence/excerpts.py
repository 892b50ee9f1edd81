"""What facts quote: copied from the transcript letter by letter, and short enough to be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from qa_worker.domain.transcript import ToolCall

LONGEST = 300

_BREAK = re.compile(r"\s(?:(?<=[.!?…]\s)\s*|(?<=\n)\n*)")  # opens with what is rare, so that most text is skipped fast


def cut(text: str) -> str:
    """The beginning of a text, at most `LONGEST` characters."""
    return text.strip()[:LONGEST].rstrip()


def of_call(call: ToolCall) -> str:
    """A tool call as `name(arguments)`, the arguments as compact JSON in the order in which they came, cut like a text."""
    if call.malformed is not None:
        return cut(f"{call.name}({call.malformed})")
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False, separators=(",", ":"), default=str)
    return cut(f"{call.name}({arguments})")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, each as it stands there."""
    return (sentence for part in _BREAK.split(text) if (sentence := part.strip()))
