"""Reading a judge's answer into an assessment: strictly, never by guessing.

Every key that the schema asks for must be there, with its own type: a level is an integer (`"3"`, `3.0` and `true` are
not), criterion ids and severities may differ in case only, two answers in one text must say the same. Keys that nobody
asked for are ignored. Prose or a fence around the answer changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from qa_worker.domain.answer_text import Reason, Unreadable, objects
from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding
from qa_worker.domain.rubric import LEVELS, Rubric, Severity

__all__ = ["Reason", "Unreadable", "answer_schema", "read_assessment"]

MAX_FINDINGS = 50
MAX_SUMMARY_CHARS = 2_000
MAX_EXPLANATION_CHARS = 1_000
MAX_QUOTE_CHARS = 500
MAX_TURN = 100_000

_WORST_FIRST = (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR)
# What a database or a page can't hold: NUL and other control characters, halves of surrogate pairs.
_UNPRINTABLE: dict[int, str | None] = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127))
_UNPRINTABLE |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")

_T = TypeVar("_T")


def answer_schema(rubric: Rubric) -> dict[str, Any]:
    """The JSON schema that binds the answer, within the API's subset (no ranges, everything required).

    Required properties come in schema order, so findings with their quotes are written before levels are given.
    """
    finding = {
        "criterion": {"type": "string", "enum": [criterion.id for criterion in rubric.criteria]},
        "severity": {"type": "string", "enum": [severity.value for severity in Severity]},
        "turn": {"type": "integer", "description": "number of the turn that is quoted"},
        "quote": {"type": "string", "description": "verbatim from that turn, at most 200 characters"},
        "explanation": {"type": "string", "description": "one or two sentences"},
    }
    level = {
        "explanation": {"type": "string", "description": "one or two sentences that name turns"},
        "applicable": {"type": "boolean"},
        "level": {"type": "integer", "enum": list(LEVELS)},
    }
    return _object(
        {
            "summary": {"type": "string", "description": "two or three sentences"},
            "findings": {"type": "array", "items": _object(finding)},
            "criteria": _object({criterion.id: _object(level) for criterion in rubric.criteria}),
        }
    )


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }


def read_assessment(text: str, *, rubric: Rubric) -> Assessment:
    """The assessment that a model's answer holds, one level for each criterion of the rubric, in its order.

    Texts are cleaned of characters that can't be stored and cut to a sane length; of more than 50 findings the worst
    50 are kept. A turn that can't be one (negative) becomes None.
    Raises: Unreadable.
    """
    answers = [_assessment(answer, rubric) for answer in objects(text, holding="criteria")]
    if any(answer != answers[0] for answer in answers):
        raise Unreadable(Reason.CONFLICTING)
    return answers[0]


def _assessment(answer: Mapping[str, Any], rubric: Rubric) -> Assessment:
    findings = [
        _finding(item, rubric, f"findings[{number}]") for number, item in enumerate(_get(answer, "findings", list, ""))
    ]
    levels = _by_id(_get(answer, "criteria", dict, ""))
    return Assessment(
        levels=tuple(_level(levels, criterion.id) for criterion in rubric.criteria),
        findings=_worst(findings),
        summary=_text(answer, "summary", "", limit=MAX_SUMMARY_CHARS),
    )


def _finding(item: Any, rubric: Rubric, where: str) -> Finding:
    finding = _mapping(item, where)
    criterion = rubric.criterion(_get(finding, "criterion", str, where))
    if criterion is None:
        raise Unreadable(Reason.UNKNOWN_VALUE, f"{where}.criterion")
    turn = _get(finding, "turn", int, where)
    return Finding(
        criterion=criterion.id,
        severity=_severity(_get(finding, "severity", str, where), f"{where}.severity"),
        explanation=_text(finding, "explanation", where, limit=MAX_EXPLANATION_CHARS),
        turn=turn if 0 <= turn <= MAX_TURN else None,
        quote=_clean(_get(finding, "quote", str, where))[:MAX_QUOTE_CHARS],
    )


def _severity(value: str, where: str) -> Severity:
    wanted = value.strip().casefold()
    for severity in Severity:
        if severity.value == wanted:
            return severity
    raise Unreadable(Reason.UNKNOWN_VALUE, where)


def _by_id(criteria: Mapping[str, Any]) -> dict[str, Any]:
    by_id = {key.strip().casefold(): value for key, value in criteria.items()}
    if len(by_id) != len(criteria):
        raise Unreadable(Reason.DUPLICATE_KEY, "criteria")
    return by_id


def _level(levels: Mapping[str, Any], criterion_id: str) -> CriterionLevel:
    where = f"criteria.{criterion_id}"
    key = criterion_id.strip().casefold()
    if key not in levels:
        raise Unreadable(Reason.MISSING, where)
    item = _mapping(levels[key], where)
    level = _get(item, "level", int, where)
    if level not in LEVELS:
        raise Unreadable(Reason.UNKNOWN_VALUE, f"{where}.level")
    applicable = _get(item, "applicable", bool, where)
    return CriterionLevel(
        criterion=criterion_id,
        # the schema makes the model give a level even where there is nothing to measure
        level=level if applicable else None,
        explanation=_text(item, "explanation", where, limit=MAX_EXPLANATION_CHARS),
        applicable=applicable,
    )


def _worst(findings: list[Finding]) -> tuple[Finding, ...]:
    kept = sorted(range(len(findings)), key=lambda number: _WORST_FIRST.index(findings[number].severity))
    return tuple(findings[number] for number in sorted(kept[:MAX_FINDINGS]))


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(Reason.WRONG_TYPE, where)
    return value


def _get(item: Mapping[str, Any], key: str, kind: type[_T], where: str) -> _T:
    path = f"{where}.{key}" if where else key
    if key not in item:
        raise Unreadable(Reason.MISSING, path)
    value = item[key]
    # `type is`, not isinstance: true is an int to Python
    if type(value) is not kind:
        raise Unreadable(Reason.WRONG_TYPE, path)
    return value


def _text(item: Mapping[str, Any], key: str, where: str, *, limit: int) -> str:
    text = _clean(_get(item, key, str, where))
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _clean(text: str) -> str:
    return text.translate(_UNPRINTABLE).strip()
