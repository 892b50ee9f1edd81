"""What the tools of an agent under test answer: by matching rules, and with the faults that real tools have.

An answer depends on the rules and on the calls before it in the same run, and on nothing else: a run that another worker
takes up gets the same answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from qa_worker.domain.call_control import controls
from qa_worker.domain.matching import ArgumentRule, unmet
from qa_worker.domain.transcript import ToolCall

TIMEOUT_S = 30.0
"""How long an agent waits for a tool that never answers, on the run's clock."""


class Answers(StrEnum):
    """What a mock does."""

    RETURNS = "returns"
    FAILS = "fails"
    """An error, as the tool itself reports one."""
    TIMES_OUT = "times_out"
    MALFORMED = "malformed"
    """Raw text that is not what the tool promises: cut JSON, a page of HTML."""


@dataclass(frozen=True, slots=True)
class Mock:
    """One rule: to calls with these arguments, this answer, `after_s` seconds later on the run's clock.

    `times` is how many calls it answers, None for all; later ones go to the rules after it.
    """

    answers: Answers
    body: Any = None
    when: tuple[ArgumentRule, ...] = ()
    after_s: float = 0.0
    times: int | None = None


@dataclass(frozen=True, slots=True)
class MockAnswer:
    """A tool's result as the transcript holds it.

    `matched` is False where the file has no answer for the call: a fault of the test, which is not the agent's.
    """

    text: str
    is_error: bool = False
    after_s: float = 0.0
    matched: bool = True


@dataclass(frozen=True, slots=True)
class ToolMocks:
    """The rules of each tool, in the order in which they are tried."""

    rules: dict[str, tuple[Mock, ...]] = field(default_factory=dict)

    def answer(self, call: ToolCall, *, earlier: Sequence[ToolCall] = ()) -> MockAnswer:
        """The answer to a call. `earlier` are the calls of the run before it, of all tools.

        Where no rule fits, tools that end a call or hand it over succeed, and all others fail.
        """
        if call.malformed is not None:
            return MockAnswer(_text({"error": "the arguments are no JSON object"}), is_error=True)
        used: Counter[int] = Counter()
        same = [past for past in earlier if past.name == call.name]
        for past in same:
            used[self._place(past, used)] += 1
        place = self._place(call, used)
        if place < 0 and controls(call.name):
            return MockAnswer(_text({"status": "ok"}))
        if place < 0:
            return MockAnswer(_text({"error": "no record matches these arguments"}), is_error=True, matched=False)
        return _given(self.rules[call.name][place])

    def _place(self, call: ToolCall, used: Counter[int]) -> int:
        """Which rule answers, when so many calls were answered by each; -1 for none."""
        rules = self.rules.get(call.name, ())
        fitting = (
            place
            for place, rule in enumerate(rules)
            if (rule.times is None or used[place] < rule.times) and not unmet(rule.when, call.arguments)
        )
        return -1 if call.malformed is not None else next(fitting, -1)


def _given(mock: Mock) -> MockAnswer:
    match mock.answers:
        case Answers.RETURNS:
            return MockAnswer(_text(mock.body), after_s=mock.after_s)
        case Answers.FAILS:
            return MockAnswer(_text({"error": mock.body}), is_error=True, after_s=mock.after_s)
        case Answers.TIMES_OUT:
            return MockAnswer(_text({"error": "timed out"}), is_error=True, after_s=mock.after_s or TIMEOUT_S)
        case Answers.MALFORMED:
            return MockAnswer(str(mock.body), after_s=mock.after_s)


def _text(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False)
