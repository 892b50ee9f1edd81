"""Files that people write by hand: read strictly, with the line of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, ValidationError

from qa_worker.adapters.importers.fields import Door
from qa_worker.adapters.importers.json_values import check_json
from qa_worker.adapters.importers.problems import all_from_validation, from_validation, kind_of, refuse, shown
from qa_worker.adapters.importers.yaml_lines import line_of
from qa_worker.adapters.importers.yaml_values import QUOTED, load_yaml
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.markers import parse_line
from qa_worker.domain.matching import ArgumentRule, Match

_MAX_CHARS = 256 * 1024
_MAX_VALUES = 20_000
_MAX_NAME_CHARS = 100
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
_ID_FIX = "Use lower-case letters, digits, - and _, at most 80 characters"
_RULE_FIX = (
    "Write the value itself, or one_of: [...], contains: text, pattern: text, at_least: number, at_most: number, "
    "present: true"
)


class Written(Door):
    """Unlike a call, such a file is written by hand: a field that means nothing is a mistake, never an extra."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


_Model = TypeVar("_Model", bound=Written)


def read_written(text: str, model: type[_Model], *, source: str, fixes: Mapping[str, str]) -> _Model:
    """A file's content as its model. Raises InvalidInput with `source`, the line, the field's path and the fix."""
    try:
        return _validated(text, model)
    except ValidationError as error:
        raise _located(from_validation(error, fixes=fixes), text, source) from None
    except InvalidInput as error:
        raise _located(error, text, source) from None


def written_problems(
    text: str, model: type[_Model], *, source: str, fixes: Mapping[str, str]
) -> tuple[InvalidInput, ...]:
    """Everything for which `read_written` would refuse this text; nothing where it wouldn't.

    A misspelt field hides what else is wrong beside and below it, until its name is right.
    """
    try:
        _validated(text, model)
    except ValidationError as error:
        return tuple(_located(problem, text, source) for problem in all_from_validation(error, fixes=fixes))
    except InvalidInput as error:
        return (_located(error, text, source),)
    return ()


def _validated(text: str, model: type[_Model]) -> _Model:
    data = load_yaml(text, max_chars=_MAX_CHARS)
    check_json(data, max_values=_MAX_VALUES)
    return model.model_validate(data)


def _located(error: InvalidInput, text: str, source: str) -> InvalidInput:
    error.source = source
    if error.line is None and len(text) <= _MAX_CHARS:
        error.line = line_of(text, error.field)
    return error


def _id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise refuse(f"is {shown(value)}, which can't be an id", _ID_FIX)
    return value


def _name(value: str) -> str:
    if not value.strip() or len(value) > _MAX_NAME_CHARS or not value.isprintable():
        raise refuse(f"is {shown(value)}", f"Write one line of 1 to {_MAX_NAME_CHARS} characters")
    return value


def _in_quotes(value: object) -> object:
    """YAML reads `[silence - 5 seconds]` as a list, and `Hello: there` as an object."""
    if isinstance(value, list | dict):
        sign = "square brackets" if isinstance(value, list) else "a colon"
        raise refuse(f"is {kind_of(value)}: so YAML reads {sign} without quotes", QUOTED)
    return value


def _line(value: str) -> str:
    try:
        parse_line(value)
    except InvalidInput as error:
        raise refuse(f"can't be played: {error.problem}", error.fix) from None
    return value.strip()


def _arguments(value: dict[str, Any]) -> dict[str, Any]:
    argument_rules(value)
    return value


def argument_rules(arguments: Mapping[str, Any]) -> tuple[ArgumentRule, ...]:
    """`{guests: 4, time: {one_of: ["19:00", "19:30"]}}` as rules."""
    return tuple(rule for name, value in arguments.items() for rule in _rules(name, value))


def _rules(name: str, value: Any) -> list[ArgumentRule]:
    if not isinstance(value, dict):
        return [ArgumentRule(name, Match.EQUALS, value)]
    unknown = [key for key in value if key not in {match.value for match in Match}]
    if unknown or not value:
        problem = f"has {shown(unknown[0])}, which is no way to compare" if unknown else "is empty"
        raise refuse(problem, _RULE_FIX, at=(name,))
    rules = [ArgumentRule(name, Match(key), wanted) for key, wanted in value.items()]
    for rule in rules:
        _check_rule(rule)
    return rules


def _check_rule(rule: ArgumentRule) -> None:
    wanted = {
        Match.ONE_OF: list,
        Match.CONTAINS: str,
        Match.PATTERN: str,
        Match.AT_LEAST: int | float,
        Match.AT_MOST: int | float,
        Match.PRESENT: bool,
    }.get(rule.match, object)
    is_number = rule.match in {Match.AT_LEAST, Match.AT_MOST}
    if not isinstance(rule.value, wanted) or (is_number and isinstance(rule.value, bool)):
        raise refuse(f"is {kind_of(rule.value)}", _RULE_FIX, at=(rule.argument, rule.match.value))
    if rule.match is Match.PATTERN:
        try:
            re.compile(str(rule.value))
        except re.error as error:
            problem = f"is no regular expression: {error}"
            raise refuse(problem, "Correct it, or use contains", at=(rule.argument, rule.match.value)) from None


FileId = Annotated[str, AfterValidator(_id)]
Name = Annotated[str, AfterValidator(_name)]
Line = Annotated[str, BeforeValidator(_in_quotes), AfterValidator(_line)]
Arguments = Annotated[dict[str, Any], AfterValidator(_arguments)]
