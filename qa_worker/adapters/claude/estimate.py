"""What a request will probably take of the provider's token limits, before it is sent."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qa_worker.adapters.claude.request import CHARS_PER_TOKEN, max_tokens, model, static_text
from qa_worker.application.judging import JudgeRequest
from qa_worker.application.limits import Need
from qa_worker.domain.transcript import Turn

FIRST_OUTPUT_TOKENS = 700
"""Of a model that hasn't answered yet: ten findings at most and a level for each criterion, plus thinking at low effort."""

_MEMORY = 50
"""About so many latest answers make up the mean."""

_FRAME_CHARS = 300
"""What a prompt says around a transcript: date, fences, the request itself."""
_TURN_CHARS = 14
"""Number and role of a turn."""
_TIMES_CHARS = 10
_TOOL_CALL_CHARS = 20
_FACT_CHARS = 25


class PastOutputs:
    """The mean of the output tokens of each model's latest answers."""

    def __init__(self) -> None:
        self._means: dict[str, tuple[float, int]] = {}

    def note(self, model_name: str, output_tokens: int) -> None:
        """An answer came. Failures without output tell nothing of answers and don't count."""
        if output_tokens <= 0:
            return
        mean, seen = self._means.get(model_name, (float(FIRST_OUTPUT_TOKENS), 1))
        weight = max(1 / (seen + 1), 1 / _MEMORY)
        self._means[model_name] = (mean + weight * (output_tokens - mean), seen + 1)

    def expected(self, model_name: str) -> int:
        """Tokens that the next answer will probably have."""
        mean, _ = self._means.get(model_name, (float(FIRST_OUTPUT_TOKENS), 0))
        return math.ceil(mean)


def need(request: JudgeRequest, *, past_output: PastOutputs, warm: bool = False) -> Need:
    """An estimate; `warm` says that the static part is in the provider's cache, where reading it counts for nothing.

    The prompt isn't built for it, only its characters are counted: a few percent matter less than the CPU.
    """
    chars = _user_chars(request) + (0 if warm else len(static_text(request)))
    return Need(
        input_tokens=math.ceil(chars / CHARS_PER_TOKEN),
        output_tokens=min(past_output.expected(model(request)), max_tokens(request)),
    )


def _user_chars(request: JudgeRequest) -> int:
    facts = sum(len(fact.detail) + _FACT_CHARS for fact in request.evidence.facts)
    turns = sum(size for turn in request.call.transcript for size in _turn_chars(turn))
    return _FRAME_CHARS + len(request.call.expected.outcome) + facts + turns


def _turn_chars(turn: Turn) -> Iterator[int]:
    head = _TURN_CHARS + (0 if turn.start_s is None else _TIMES_CHARS)
    if turn.text or not turn.tool_calls:
        yield head + len(turn.text)
    for call in turn.tool_calls:
        arguments = call.malformed if call.malformed is not None else str(call.arguments)
        yield head + len(call.name) + len(arguments) + _TOOL_CALL_CHARS
