"""Rules for the arguments of a tool call: what a scenario expects, and which answer a mock gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from qa_worker.domain.evidence.spoken import fold
from qa_worker.domain.folding import contains, words
from qa_worker.domain.transcript import JsonObject, canonical

_NOWHERE = object()


class Match(StrEnum):
    """How an argument is compared with the rule's value. Its value is the name in a scenario file."""

    EQUALS = "equals"
    ONE_OF = "one_of"
    CONTAINS = "contains"
    PATTERN = "pattern"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    PRESENT = "present"
    """The value says whether the argument has to be there (true) or must not be (false)."""


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """What one argument has to look like. `argument` may be a path: `guest.name`."""

    argument: str
    match: Match
    value: Any

    def __str__(self) -> str:
        if self.match is Match.PRESENT:
            return f"{self.argument} {'given' if self.value else 'not given'}"
        how = "=" if self.match is Match.EQUALS else self.match.value.replace("_", " ")
        return f"{self.argument} {how} {canonical(self.value)}"


def unmet(rules: Iterable[ArgumentRule], arguments: JsonObject) -> tuple[ArgumentRule, ...]:
    """The rules that these arguments break, in order.

    Texts are equal when their letters and digits are, so that `0172 555 0148` is `01725550148` and `HT-4821` is `ht4821`;
    `4`, `4.0` and `"4"` are one number. `contains` looks for whole words, `pattern` is a regular expression that is
    searched for without regard to case.
    """
    return tuple(rule for rule in rules if not _holds(rule, arguments))


def _holds(rule: ArgumentRule, arguments: JsonObject) -> bool:
    given = _value(arguments, rule.argument)
    if rule.match is Match.PRESENT:
        return (given is not _NOWHERE and given is not None) is rule.value
    return given is not _NOWHERE and _TESTS[rule.match](given, rule.value)


def _value(arguments: JsonObject, path: str) -> Any:
    if path in arguments:
        return arguments[path]
    found: Any = arguments
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _NOWHERE
        found = found[part]
    return found


def _equal(given: Any, wanted: Any) -> bool:
    numbers = _number(given), _number(wanted)
    if None not in numbers and not (isinstance(given, str) and isinstance(wanted, str)):
        return numbers[0] == numbers[1]
    if isinstance(given, str) and isinstance(wanted, str):
        return (fold(given) or given.strip()) == (fold(wanted) or wanted.strip())
    return canonical(given) == canonical(wanted)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _compared(test: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def holds(given: Any, wanted: Any) -> bool:
        number, limit = _number(given), _number(wanted)
        return number is not None and limit is not None and test(number, limit)

    return holds


_TESTS: Mapping[Match, Callable[[Any, Any], bool]] = {
    Match.EQUALS: _equal,
    Match.ONE_OF: lambda given, wanted: any(_equal(given, value) for value in wanted),
    Match.CONTAINS: lambda given, wanted: contains(words(str(given)), words(str(wanted))),
    Match.PATTERN: lambda given, wanted: re.search(wanted, str(given), re.IGNORECASE) is not None,
    Match.AT_LEAST: _compared(lambda given, limit: given >= limit),
    Match.AT_MOST: _compared(lambda given, limit: given <= limit),
}
