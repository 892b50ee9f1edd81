"""A scenario as a QA engineer writes it, in YAML or JSON. docs/scenarios.md describes the format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from qa_worker.adapters.importers.fields import Phrase, Text
from qa_worker.adapters.importers.problems import refuse, shown
from qa_worker.adapters.importers.written import (
    Arguments,
    FileId,
    Line,
    Name,
    Written,
    argument_rules,
    read_written,
    written_problems,
)
from qa_worker.domain.call import Expected
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.markers import parse_line
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Limits, Play, Scenario, Told, ToolRule

_DEFAULTS = Limits()
_MOST_TURNS = 200
_MOST_TOKENS = 128_000
_FEWEST_TOKENS = 16
_MOST_REPEATS = 100
_LONGEST_S = 7200
_MOST_LINES = 200

_FIXES: Mapping[str, str] = {
    "id": "Write an id such as booking-changes-mind",
    "title": "Write one line that people recognise the scenario by",
    "agent": "Write the id of the agent that is called, such as booking",
    "play": "Write script (the fixed lines) or free (a model plays from persona, goal and facts)",
    "persona": "Write who calls, as one text",
    "goal": "Write what the caller wants, as one text",
    "facts": 'Write an object of texts such as phone: "01725550148"; put numbers and dates in quotes',
    "opening": "Write the caller's first line, as one text",
    "steps": "Write a list of the caller's lines after the opening",
    "ends": "Write an object with tools, said, when",
    "tools": "Write a list of tool names",
    "said": "Write a list of phrases",
    "when": "Write in words when the caller has what they called for",
    "expected": (
        "Write an object with outcome, required_tools, forbidden_tools, required_phrases, forbidden_phrases, facts"
    ),
    "outcome": "Write what has to come of the call, as one text",
    "required_tools": "Write a list of tool names, or of objects with tool and arguments",
    "forbidden_tools": "Write a list of tool names, or of objects with tool and arguments",
    "tool": "Write the tool's name",
    "arguments": "Write an object of argument names and what they have to be",
    "required_phrases": "Write a list of phrases",
    "forbidden_phrases": "Write a list of phrases",
    "rubric": "Write the rubric's name, or leave it out",
    "limits": "Write an object with max_turns, max_reply_tokens, reply_s, call_s, run_s",
    "max_turns": f"Write a whole number from 1 to {_MOST_TURNS}",
    "max_reply_tokens": f"Write a whole number from {_FEWEST_TOKENS} to {_MOST_TOKENS}",
    **dict.fromkeys(("reply_s", "call_s", "run_s"), "Write seconds as a number"),
    "repeats": f"Write a whole number from 1 to {_MOST_REPEATS}",
    "tags": "Write a list of words such as [hard-caller, identity]",
}


def parse_scenario(text: str, *, source: str) -> Scenario:
    """The scenario that a YAML or JSON text describes.

    Raises InvalidInput with `source`, the line, the field's path (`steps[2]`) and the fix.
    """
    return read_written(text, _ScenarioIn, source=source, fixes=_FIXES).scenario()


def scenario_problems(text: str, *, source: str) -> tuple[InvalidInput, ...]:
    """Everything for which `parse_scenario` would refuse this text; nothing where it wouldn't."""
    return written_problems(text, _ScenarioIn, source=source, fixes=_FIXES)


def _whole(low: int, high: int) -> AfterValidator:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise refuse(f"is {shown(value)}, and must be from {low} to {high:,}", "Write a whole number in that range")
        return value

    return AfterValidator(check)


def _seconds(value: float) -> float:
    if not 0 < value <= _LONGEST_S:
        raise refuse(f"is {shown(value)}, and must be above 0 and at most {_LONGEST_S}", "Write seconds, such as 30")
    return value


def _as_rule(value: object) -> object:
    return {"tool": value} if isinstance(value, str) else value


def _as_forms(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _not_empty(value: list[str]) -> list[str]:
    if not value:
        raise refuse("is empty", "Write at least one way to say it")
    return value


Seconds = Annotated[float, AfterValidator(_seconds)]
Forms = Annotated[list[Phrase], BeforeValidator(_as_forms), AfterValidator(_not_empty)]


class _ToolIn(Written):
    mistaken: ClassVar[Mapping[str, str]] = {"args": "arguments", "name": "tool", "parameters": "arguments"}

    tool: Name
    arguments: Arguments | None = None

    def rule(self) -> ToolRule:
        return ToolRule(self.tool, argument_rules(self.arguments or {}))


Tools = list[Annotated[_ToolIn, BeforeValidator(_as_rule)]]


class _ExpectedIn(Written):
    mistaken: ClassVar[Mapping[str, str]] = {"tools": "required_tools", "phrases": "required_phrases"}

    outcome: Text | None = None
    required_tools: Tools | None = None
    forbidden_tools: Tools | None = None
    required_phrases: list[Phrase] | None = None
    forbidden_phrases: list[Phrase] | None = None
    facts: dict[str, Forms] | None = None

    def expected(self) -> ExpectedOutcome:
        required = [given.rule() for given in self.required_tools or ()]
        forbidden = [given.rule() for given in self.forbidden_tools or ()]
        return ExpectedOutcome(
            call=Expected(
                outcome=(self.outcome or "").strip(),
                required_tools=tuple(dict.fromkeys(rule.tool for rule in required)),
                forbidden_tools=tuple(rule.tool for rule in forbidden if not rule.arguments),
                required_phrases=tuple(self.required_phrases or ()),
                forbidden_phrases=tuple(self.forbidden_phrases or ()),
            ),
            required=tuple(rule for rule in required if rule.arguments),
            forbidden=tuple(rule for rule in forbidden if rule.arguments),
            told=tuple(Told(name, tuple(forms)) for name, forms in (self.facts or {}).items()),
        )


class _EndsIn(Written):
    tools: list[Name] | None = None
    said: list[Phrase] | None = None
    when: Text | None = None

    def ends(self) -> Ends:
        return Ends(tuple(self.tools or ()), tuple(self.said or ()), (self.when or "").strip())


class _LimitsIn(Written):
    mistaken: ClassVar[Mapping[str, str]] = {"maxtokens": "max_reply_tokens", "turns": "max_turns", "timeout": "run_s"}

    max_turns: Annotated[int, _whole(1, _MOST_TURNS)] = _DEFAULTS.max_turns
    max_reply_tokens: Annotated[int, _whole(_FEWEST_TOKENS, _MOST_TOKENS)] = _DEFAULTS.max_reply_tokens
    reply_s: Seconds = _DEFAULTS.reply_s
    call_s: Seconds = _DEFAULTS.call_s
    run_s: Seconds = _DEFAULTS.run_s

    def limits(self) -> Limits:
        return Limits(self.max_turns, self.max_reply_tokens, self.reply_s, self.call_s, self.run_s)


class _ScenarioIn(Written):
    mistaken: ClassVar[Mapping[str, str]] = {
        "name": "title",
        "script": "steps",
        "lines": "steps",
        **dict.fromkeys(("maxturns", "maxturn"), "limits.max_turns"),
        **dict.fromkeys(("maxreplytokens", "maxtokens"), "limits.max_reply_tokens"),
        "expectedoutcome": "expected",
    }

    id: FileId
    title: Name
    agent: Name
    play: Literal["script", "free"] | None = None
    persona: Text | None = None
    goal: Text | None = None
    facts: dict[str, Phrase] | None = None
    opening: Line | None = None
    steps: list[Line] | None = None
    ends: _EndsIn | None = None
    expected: _ExpectedIn | None = None
    rubric: Name | None = None
    limits: _LimitsIn | None = None
    repeats: Annotated[int, _whole(1, _MOST_REPEATS)] = 1
    tags: list[FileId] | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        places = [("opening",)] if self.opening else []
        at = [*places, *(("steps", index) for index in range(len(self.steps or ())))]
        for place, line in list(zip(at, self._lines(), strict=True))[:-1]:
            if parse_line(line).hangs_up:
                raise refuse("hangs up, and lines follow", "Hang up in the last line only", at=place)
        if len(at) > _MOST_LINES:
            raise refuse(f"has {len(at)} lines", f"Write at most {_MOST_LINES}", at=("steps",))
        missing = [name for name in ("persona", "goal") if not (getattr(self, name) or "").strip()]
        if self._play() is Play.FREE and missing:
            raise refuse("is missing", "A model can't play without it; or write the caller's lines", at=(missing[0],))
        if not at and self._play() is Play.SCRIPT:
            raise refuse("is missing", _FIXES["steps"], at=("steps",))
        return self

    def _lines(self) -> list[str]:
        return [*([self.opening] if self.opening else ()), *(self.steps or ())]

    def _play(self) -> Play:
        return Play(self.play) if self.play else Play.SCRIPT if self.steps else Play.FREE

    def scenario(self) -> Scenario:
        return Scenario(
            id=self.id,
            title=self.title,
            agent=self.agent,
            play=self._play(),
            persona=(self.persona or "").strip(),
            goal=(self.goal or "").strip(),
            facts={name: value.strip() for name, value in (self.facts or {}).items()},
            opening=self.opening or "",
            steps=tuple(self.steps or ()),
            ends=self.ends.ends() if self.ends else Ends(),
            expected=self.expected.expected() if self.expected else ExpectedOutcome(),
            rubric=self.rubric,
            limits=self.limits.limits() if self.limits else Limits(),
            repeats=self.repeats,
            tags=tuple(self.tags or ()),
        )
