"""A scenario as the YAML text that `parse_scenario` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import yaml

from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.scenario import ExpectedOutcome, Limits, Scenario, ToolRule

_WIDTH = 118


def scenario_yaml(scenario: Scenario) -> str:
    """The text; reading it gives the same scenario. Empty parts and defaults are left out."""
    defaults = asdict(Limits())
    content = {
        "id": scenario.id,
        "title": scenario.title,
        "agent": scenario.agent,
        "play": scenario.play.value,
        "persona": scenario.persona,
        "goal": scenario.goal,
        "facts": dict(scenario.facts),
        "opening": scenario.opening,
        "steps": list(scenario.steps),
        "ends": _filled({name: _listed(value) for name, value in asdict(scenario.ends).items()}),
        "expected": _expected(scenario.expected),
        "rubric": scenario.rubric,
        "limits": {name: value for name, value in asdict(scenario.limits).items() if value != defaults[name]},
        "repeats": scenario.repeats if scenario.repeats > 1 else None,
        "tags": list(scenario.tags),
    }
    return yaml.safe_dump(_filled(content), sort_keys=False, allow_unicode=True, width=_WIDTH)


def _expected(expected: ExpectedOutcome) -> dict[str, Any]:
    call = expected.call
    content = {
        "outcome": call.outcome,
        "required_tools": _tools(call.required_tools, expected.required),
        "forbidden_tools": _tools(call.forbidden_tools, expected.forbidden),
        "required_phrases": list(call.required_phrases),
        "forbidden_phrases": list(call.forbidden_phrases),
        "facts": {told.name: list(told.forms) for told in expected.told},
    }
    return _filled(content)


def _tools(names: Iterable[str], rules: Iterable[ToolRule]) -> list[Any]:
    """Names without rules as they are; rules in the place of their tool's name, or at the end where it isn't among them."""
    written: dict[str, list[Any]] = {name: [] for name in names}
    for rule in rules:
        written.setdefault(rule.tool, []).append({"tool": rule.tool, "arguments": _arguments(rule.arguments)})
    return [entry for name, given in written.items() for entry in (given or [name])]


def _arguments(rules: Iterable[ArgumentRule]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rule in rules:
        is_plain = rule.match is Match.EQUALS and not isinstance(rule.value, Mapping)
        found[rule.argument] = (
            rule.value if is_plain else {**found.get(rule.argument, {}), rule.match.value: rule.value}
        )
    return found


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _filled(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value not in (None, "", [], {})}
