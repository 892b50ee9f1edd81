"""What a stored call's request will probably take, from sizes that the database counts: no transcript is read for it.

The transcript's JSON and its form in the prompt differ by the frame of each turn; the agent's texts are nearly the same
in both. `tests/adapters/claude/test_sizes.py` holds the result against the estimate that is made of a whole request.
"""

from __future__ import annotations

import json
import math
import uuid

from qa_worker.adapters.claude.estimate import FIRST_OUTPUT_TOKENS
from qa_worker.adapters.claude.request import CHARS_PER_TOKEN, DEFAULT_SPEC
from qa_worker.application.batching import Estimate, StoredSize
from qa_worker.application.ports import RubricVersion
from qa_worker.domain.call import Agent
from qa_worker.domain.prompt import system_text
from qa_worker.domain.reading import answer_schema

_FRAME_CHARS = 400
"""What a prompt says around a transcript, with a few facts of evidence."""
_TURN_CHARS = 18
"""By so many characters a turn's JSON (`{"role": "agent", "text": ""}, `) is longer than its line (`[7] agent: `)."""
_ITEM_BYTES = 400
"""The rest of a request's JSON: ids, model, settings, keys."""
_MAX_REMEMBERED = 1000


class StoredSizes:
    """Implements the port `Sizer`."""

    def __init__(self) -> None:
        self._static: dict[uuid.UUID, tuple[int, int]] = {}

    def estimate(self, version: RubricVersion, size: StoredSize, *, mean_output: int | None) -> Estimate:
        """See the port."""
        static_chars, static_bytes = self._of(version)
        chars = static_chars + size.agent_chars + _prompt(size.call_chars, size.turns)
        most = version.judge.max_tokens or DEFAULT_SPEC.max_tokens
        return Estimate(
            input_tokens=math.ceil(chars / CHARS_PER_TOKEN),
            output_tokens=min(mean_output or FIRST_OUTPUT_TOKENS, most),
            body_bytes=static_bytes + size.agent_bytes + _prompt(size.call_bytes, size.turns) + _ITEM_BYTES,
        )

    def _of(self, version: RubricVersion) -> tuple[int, int]:
        """Of the static part without the agent: (characters, bytes with the answer's schema)."""
        known = self._static.get(version.id)
        if known is None:
            if len(self._static) >= _MAX_REMEMBERED:
                self._static.clear()
            schema = json.dumps(answer_schema(version.rubric), ensure_ascii=False)
            text = system_text(version.rubric, Agent(id=""))
            known = (len(text), len((text + schema).encode()))
            self._static[version.id] = known
        return known


def _prompt(stored: int, turns: int) -> int:
    """How long the prompt about a transcript is that is `stored` so long as JSON, both in characters or both in bytes."""
    return max(stored - _TURN_CHARS * turns, 0) + _FRAME_CHARS
