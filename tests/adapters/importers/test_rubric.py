from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import yaml

from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.application.ports import JudgeOverrides
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.rubric import Checks, Criterion, PhraseRule, Rubric, Severity
from qa_worker.rubrics import default_rubric_text

# Five lines that stand for 9 * 8 ** 5 values.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 8)}]\n" for before, name in pairwise("abcdef")
)
LEVELS = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "very good"}


def a_criterion(criterion_id: str = "tone", **changes: Any) -> dict[str, Any]:
    """A criterion as it stands in a file."""
    return {"id": criterion_id, "title": "Tone", "question": "Was it kind?", "levels": LEVELS} | changes


def a_file(**changes: Any) -> str:
    """A rubric file."""
    return yaml.safe_dump({"name": "Ours", "criteria": [a_criterion()]} | changes)


def read(text: str) -> Rubric:
    """The rubric in a text."""
    return parse_rubric(text, source="r.yaml")[0]


def refused(text: str) -> InvalidInput:
    """The error that a text is refused with."""
    with pytest.raises(InvalidInput) as caught:
        parse_rubric(text, source="r.yaml")
    assert caught.value.source == "r.yaml"
    assert caught.value.fix
    return caught.value


def test_a_full_file_is_read_as_it_stands() -> None:
    text = a_file(
        pass_threshold=80,
        guidance="Be strict.\n",
        criteria=[a_criterion(), a_criterion("rules", weight=2, critical_fails=True, minimum=50, title="Rules")],
        checks={
            "required_phrases": ["recorded", {"phrase": "goodbye", "criterion": "tone", "severity": "minor"}],
            "forbidden_phrases": [{"phrase": "guaranteed refund", "severity": "critical"}],
            "slow_response_s": 2,
            "dead_air_s": 6.5,
        },
        judge={"model": "claude-haiku-5-5", "effort": "low", "max_tokens": 3000, "votes": 3, "borderline": 0},
    )

    rubric, judge = parse_rubric(text, source="r.yaml")

    assert rubric == Rubric(
        name="Ours",
        criteria=(
            Criterion("tone", "Tone", "Was it kind?", LEVELS),
            Criterion("rules", "Rules", "Was it kind?", LEVELS, 2.0, critical_fails=True, minimum=50),
        ),
        pass_threshold=80,
        guidance="Be strict.",
        checks=Checks(
            required_phrases=(PhraseRule("recorded", "rules"), PhraseRule("goodbye", "tone", Severity.MINOR)),
            forbidden_phrases=(PhraseRule("guaranteed refund", "rules", Severity.CRITICAL),),
            slow_response_s=2.0,
            dead_air_s=6.5,
        ),
    )
    assert judge == JudgeOverrides("claude-haiku-5-5", "low", 3000, votes=3, borderline=0)


def test_what_is_optional_has_defaults() -> None:
    rubric, judge = parse_rubric(a_file(checks={"required_phrases": None}, judge=None), source="r.yaml")

    assert (rubric.pass_threshold, rubric.checks, judge) == (70, Checks(), JudgeOverrides())
    assert (rubric.criteria[0].weight, rubric.criteria[0].minimum) == (1.0, None)


def test_a_title_that_is_left_out_is_made_from_the_id() -> None:
    criterion = a_criterion("tool_usage")
    del criterion["title"]

    assert read(a_file(criteria=[criterion])).criteria[0].title == "Tool usage"


def test_a_phrase_without_criterion_counts_for_the_first_that_can_fail_a_call() -> None:
    assert read(a_file(checks={"forbidden_phrases": ["x"]})).checks.forbidden_phrases[0].criterion == "tone"


@pytest.mark.parametrize("indent", [None, "\t", 2])
def test_json_is_read_too(indent: str | int | None) -> None:
    text = json.dumps({"name": "Ours", "criteria": [a_criterion()]}, indent=indent)

    assert read(text) == read("\ufeff" + text) == read(a_file())


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"name": None}, "name", "is null"),
        ({"name": ""}, "name", 'is ""'),
        ({"pass_threshold": 101}, "pass_threshold", "from 0 to 100"),
        ({"pass_threshold": -1}, "pass_threshold", "from 0 to 100"),
        ({"pass_threshold": 70.5}, "pass_threshold", "whole number"),
        ({"pass_threshold": "70"}, "pass_threshold", "whole number"),
        ({"criteria": []}, "criteria", "has 0 entries"),
        ({"criteria": {"tone": {}}}, "criteria", "must be a list"),
        ({"criteria": [a_criterion(f"c{i}") for i in range(21)]}, "criteria", "has 21 entries"),
        ({"criteria": [a_criterion(), a_criterion()]}, "criteria", "'tone' twice"),
        ({"threshold": 5}, "threshold", "is not a field"),
        ({"crteria": []}, "crteria", "is not a field"),
        ({"colour": "red"}, "colour", "is not a field"),
        ({"checks": {"required_phrases": "hello"}}, "checks.required_phrases", "must be a list"),
        ({"checks": {"required_phrases": [""]}}, "checks.required_phrases[0].phrase", "is blank"),
        ({"checks": {"required_phrases": [{}]}}, "checks.required_phrases[0].phrase", "is missing"),
        (
            {"checks": {"forbidden_phrases": ["a", {"phrase": "b", "criterion": "rules"}]}},
            "checks.forbidden_phrases[1].criterion",
            "no criterion has that id",
        ),
        (
            {"checks": {"forbidden_phrases": [{"phrase": "b", "severity": "fatal"}]}},
            "checks.forbidden_phrases[0].severity",
            'is "fatal"',
        ),
        ({"checks": {"dead_air_s": 0}}, "checks.dead_air_s", "above 0"),
        ({"checks": {"slow_response_s": float("inf")}}, "checks.slow_response_s", "is inf"),
        ({"checks": {"slow_response": 3}}, "checks.slow_response", "is not a field"),
        ({"judge": {"effort": "maximum"}}, "judge.effort", 'is "maximum"'),
        ({"judge": {"max_tokens": 0}}, "judge.max_tokens", "from 1 to"),
        ({"judge": {"max_tokens": True}}, "judge.max_tokens", "whole number"),
        ({"judge": {"model": ""}}, "judge.model", 'is ""'),
        ({"judge": {"votes": 2}}, "judge.votes", "must be odd"),
        ({"judge": {"votes": 11}}, "judge.votes", "from 1 to 9"),
        ({"judge": {"votes": "3"}}, "judge.votes", "whole number"),
        ({"judge": {"borderline": 101}}, "judge.borderline", "from 0 to 100"),
        ({"judge": "opus"}, "judge", "must be an object"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str, words: str) -> None:
    error = refused(a_file(**change))

    assert error.field == field
    assert words in error.problem


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"id": "Tone"}, "id", "can't be an id"),
        ({"id": "9lives"}, "id", "can't be an id"),
        ({"id": "a" * 41}, "id", "can't be an id"),
        ({"id": True}, "id", "true or false"),
        ({"weight": 0}, "weight", "above 0"),
        ({"weight": -1}, "weight", "above 0"),
        ({"weight": float("nan")}, "weight", "is nan"),
        ({"weight": "heavy"}, "weight", "must be a number"),
        ({"minimum": 200}, "minimum", "from 0 to 100"),
        ({"question": " "}, "question", "is blank"),
        ({"critical_fail": True}, "critical_fail", "is not a field"),
        ({"critical_fails": "yes"}, "critical_fails", "true or false"),
        ({"levels": {1: "a", 2: "b", 4: "c"}}, "levels", "lacks level 3, 5"),
        ({"levels": LEVELS | {6: "x"}}, "levels", 'has a level "6"'),
        ({"levels": LEVELS | {3: None}}, "levels.3", "is null"),
        ({"levels": ["a", "b", "c", "d", "e"]}, "levels", "must be an object"),
    ],
)
def test_a_wrong_field_of_a_criterion_is_named(change: dict[str, Any], field: str, words: str) -> None:
    error = refused(a_file(criteria=[a_criterion(**change)]))

    assert error.field == f"criteria[0].{field}"
    assert words in error.problem


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "is empty"),
        ("name: [\n", 2, "not YAML"),
        ("name: a\nname: b\n", 2, "given twice"),
        ("name: a\n? [1, 2]\n: x\n", 2, "a key that is no text"),
        ('{"name": ,}', 1, "not JSON"),
        ("name: !!timestamp x", None, "can't be read"),
        ("name: !!python/name:os.system", 1, "not YAML"),
        ("when: 2026-13-45", None, "can't be read"),
        ("[" * 1500, None, "can't be read"),
        ('{"a":' * 50_000, None, "nested too deeply"),
        ("a" * 300_000, None, "at most 262,144"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_text_that_is_no_yaml_says_where(text: str, line: int | None, words: str) -> None:
    error = refused(text)

    assert (error.field, error.line) == ("(file)", line)
    assert words in error.problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- just\n- a list\n", "must be an object"),
        ("just a text", "must be an object"),
        (BOMB, "too many values"),
        ("a: &a\n  b: *a\n", "64 levels"),
        ("name: 2026-11-02\n", "a date"),
    ],
)
def test_yaml_that_is_no_rubric_is_refused(text: str, words: str) -> None:
    assert words in refused(text).problem


def test_the_default_rubric_is_what_the_documentation_promises() -> None:
    rubric, judge = parse_rubric(default_rubric_text(), source="voice_agent.yaml")

    weights = {criterion.id: criterion.weight for criterion in rubric.criteria}
    assert weights == {"intent_completion": 0.35, "tool_usage": 0.25, "compliance": 0.2, "response_quality": 0.2}
    assert [criterion.id for criterion in rubric.criteria if criterion.critical_fails] == ["compliance"]
    assert rubric.pass_threshold == 70
    assert all(len(text) > 60 for criterion in rubric.criteria for text in criterion.levels.values())
    assert judge == JudgeOverrides()
