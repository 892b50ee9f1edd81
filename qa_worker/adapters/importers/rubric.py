"""A rubric as a QA engineer writes it, in YAML or JSON. docs/rubrics.md describes the format."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, ValidationError, model_validator

from qa_worker.adapters.importers.fields import Door, Phrase, Text
from qa_worker.adapters.importers.json_values import check_json
from qa_worker.adapters.importers.problems import from_validation, refuse, shown
from qa_worker.adapters.importers.yaml_values import load_yaml
from qa_worker.application.ports import JudgeOverrides
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.rubric import LEVELS, Checks, Criterion, PhraseRule, Rubric, Severity

_DEFAULTS = Checks()
_MAX_CHARS = 256 * 1024
_MAX_VALUES = 20_000
_MAX_CRITERIA = 20
_MAX_SECONDS = 3600
_CRITERION_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MAX_NAME_CHARS = 100
# The most that any current model of the judge's vendor can put out.
_MAX_TOKENS = 128_000
_VOTES = (1, 3, 5, 7, 9)

_FIXES: Mapping[str, str] = {
    "name": "Give the rubric a short name",
    "pass_threshold": "Write a whole number from 0 to 100",
    "guidance": "Write one text",
    "criteria": "Write a list of 1 to 20 criteria",
    "id": "Use lower-case letters, digits and _, beginning with a letter, at most 40 characters",
    "title": "Write the name that people see",
    "question": "Write the question that the judge answers",
    "weight": "Write a number above 0, such as 0.25",
    "critical_fails": "Write true or false",
    "minimum": "Write a whole number from 0 to 100, or leave it out",
    "levels": "Describe each of the levels 1, 2, 3, 4 and 5",
    "checks": "Write an object with required_phrases, forbidden_phrases, slow_response_s, dead_air_s",
    "required_phrases": "Write a list of phrases",
    "forbidden_phrases": "Write a list of phrases",
    "phrase": "Write the phrase, in quotes",
    "criterion": "Write the id of one of the criteria, or leave it out",
    "severity": "Write minor, major or critical",
    "slow_response_s": "Write seconds as a number",
    "dead_air_s": "Write seconds as a number",
    "judge": "Write an object with model, effort, max_tokens, votes, borderline",
    "model": "Write the model's id as a text",
    "effort": "Write low, medium, high, xhigh or max",
    "max_tokens": f"Write a whole number from 1 to {_MAX_TOKENS}",
    "votes": "Write 1, 3, 5, 7 or 9",
    "borderline": "Write a whole number of points from 0 to 100",
}


def parse_rubric(text: str, *, source: str) -> tuple[Rubric, JudgeOverrides]:
    """The rubric that a YAML or JSON text describes, and the judge settings that it overrides.

    Raises InvalidInput with the field's path (`criteria[1].levels`), `source`, and for a syntax error the line.
    """
    try:
        return _read(text)
    except InvalidInput as error:
        error.source = source
        raise


def _read(text: str) -> tuple[Rubric, JudgeOverrides]:
    data = load_yaml(text, max_chars=_MAX_CHARS)
    check_json(data, max_values=_MAX_VALUES)
    try:
        given = _RubricIn.model_validate(data)
    except ValidationError as error:
        raise from_validation(error, fixes=_FIXES) from None
    return given.rubric(), given.judge.overrides() if given.judge else JudgeOverrides()


def _whole(low: int, high: int, value: int) -> int:
    if not low <= value <= high:
        raise refuse(f"is {shown(value)}, and must be from {low} to {high:,}", "Write a whole number in that range")
    return value


def _percent(value: int) -> int:
    return _whole(0, 100, value)


def _tokens(value: int) -> int:
    return _whole(1, _MAX_TOKENS, value)


def _votes(value: int) -> int:
    if value not in _VOTES:
        raise refuse(f"is {shown(value)}, and must be odd, from 1 to 9, so that there is a majority", _FIXES["votes"])
    return value


def _weight(value: float) -> float:
    if value <= 0 or not math.isfinite(value):
        raise refuse(f"is {shown(value)}, and must be above 0", "Write a number such as 0.25, or remove the criterion")
    return value


def _seconds(value: float) -> float:
    if not 0 < value <= _MAX_SECONDS:
        raise refuse(f"is {shown(value)}, and must be above 0 and at most {_MAX_SECONDS}", "Write seconds, such as 3.5")
    return value


def _criterion_id(value: str) -> str:
    if not _CRITERION_ID.fullmatch(value):
        raise refuse(f"is {shown(value)}, which can't be an id", _FIXES["id"])
    return value


def _name(value: str) -> str:
    if not value.strip() or len(value) > _MAX_NAME_CHARS or not value.isprintable():
        raise refuse(f"is {shown(value)}", f"Write one line of 1 to {_MAX_NAME_CHARS} characters")
    return value


def _five_levels(value: object) -> object:
    if not isinstance(value, dict):
        return value
    wanted = {str(level) for level in LEVELS}
    missing, extra = sorted(wanted - value.keys()), sorted(value.keys() - wanted)
    if missing:
        raise refuse(f"lacks level {', '.join(missing)}", _FIXES["levels"])
    if extra:
        raise refuse(f"has a level {shown(extra[0])}, which doesn't exist", _FIXES["levels"])
    return value


def _as_rule(value: object) -> object:
    return {"phrase": value} if isinstance(value, str) else value


Percent = Annotated[int, AfterValidator(_percent)]
Tokens = Annotated[int, AfterValidator(_tokens)]
Votes = Annotated[int, AfterValidator(_votes)]
Weight = Annotated[float, AfterValidator(_weight)]
Seconds = Annotated[float, AfterValidator(_seconds)]
CriterionId = Annotated[str, AfterValidator(_criterion_id)]
Name = Annotated[str, AfterValidator(_name)]
Levels = Annotated[dict[str, Phrase], BeforeValidator(_five_levels)]


class _File(Door):
    """Unlike a call, a rubric is written by hand: a field that means nothing is a mistake, never an extra."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _CriterionIn(_File):
    id: CriterionId
    title: Name | None = None
    question: Phrase
    weight: Weight = 1.0
    critical_fails: bool = False
    minimum: Percent | None = None
    levels: Levels

    def criterion(self) -> Criterion:
        return Criterion(
            id=self.id,
            title=self.title or self.id.replace("_", " ").capitalize(),
            question=self.question.strip(),
            levels={int(level): meaning.strip() for level, meaning in sorted(self.levels.items())},
            weight=self.weight,
            critical_fails=self.critical_fails,
            minimum=self.minimum,
        )


class _PhraseIn(_File):
    phrase: Phrase
    criterion: str | None = None
    severity: Literal["minor", "major", "critical"] = "major"

    def rule(self, default_criterion: str) -> PhraseRule:
        return PhraseRule(self.phrase.strip(), self.criterion or default_criterion, Severity(self.severity))


Phrases = list[Annotated[_PhraseIn, BeforeValidator(_as_rule)]]


class _ChecksIn(_File):
    required_phrases: Phrases | None = None
    forbidden_phrases: Phrases | None = None
    slow_response_s: Seconds = _DEFAULTS.slow_response_s
    dead_air_s: Seconds = _DEFAULTS.dead_air_s

    def checks(self, default_criterion: str) -> Checks:
        return Checks(
            required_phrases=tuple(rule.rule(default_criterion) for rule in self.required_phrases or ()),
            forbidden_phrases=tuple(rule.rule(default_criterion) for rule in self.forbidden_phrases or ()),
            slow_response_s=self.slow_response_s,
            dead_air_s=self.dead_air_s,
        )


class _JudgeIn(_File):
    model: Name | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    max_tokens: Tokens | None = None
    votes: Votes | None = None
    borderline: Percent | None = None

    def overrides(self) -> JudgeOverrides:
        return JudgeOverrides(
            model=self.model,
            effort=self.effort,
            max_tokens=self.max_tokens,
            votes=self.votes,
            borderline=self.borderline,
        )


class _RubricIn(_File):
    mistaken: ClassVar[Mapping[str, str]] = {"threshold": "pass_threshold"}

    name: Name
    pass_threshold: Percent = 70
    guidance: Text | None = None
    criteria: list[_CriterionIn]
    checks: _ChecksIn | None = None
    judge: _JudgeIn | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not 1 <= len(self.criteria) <= _MAX_CRITERIA:
            raise refuse(f"has {len(self.criteria)} entries", _FIXES["criteria"], at=("criteria",))
        ids = [criterion.id for criterion in self.criteria]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice is not None:
            raise refuse(f"has the id {twice!r} twice", "Give each criterion an id of its own", at=("criteria",))
        for phrases in ("required_phrases", "forbidden_phrases"):
            for index, rule in enumerate(getattr(self.checks, phrases, None) or ()):
                if rule.criterion is not None and rule.criterion not in ids:
                    problem = f"is {shown(rule.criterion)}, and no criterion has that id"
                    raise refuse(problem, f"Write one of {', '.join(ids)}", at=("checks", phrases, index, "criterion"))
        return self

    def rubric(self) -> Rubric:
        critical = next((given for given in self.criteria if given.critical_fails), self.criteria[0])
        return Rubric(
            name=self.name,
            criteria=tuple(given.criterion() for given in self.criteria),
            pass_threshold=self.pass_threshold,
            guidance=(self.guidance or "").strip(),
            checks=self.checks.checks(critical.id) if self.checks else Checks(),
        )
