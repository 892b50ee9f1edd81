from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from qa_worker.adapters.importers.scenario import parse_scenario
from qa_worker.domain.call import Expected
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Limits, Play, Scenario, Told, ToolRule

MINIMAL = {"id": "plain", "title": "Plain", "agent": "booking", "steps": ["Hello."]}


def a_file(**changes: Any) -> str:
    """A scenario file; a field that is None is left out."""
    given = {name: value for name, value in (MINIMAL | changes).items() if value is not None}
    return yaml.safe_dump(given, sort_keys=False)


def refused(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_scenario(text, source="s.yaml")
    assert caught.value.source == "s.yaml"
    assert caught.value.fix
    return caught.value


def test_a_full_file_is_read_as_it_stands() -> None:
    text = a_file(
        play="free",
        persona="Old.\n",
        goal="A table.",
        facts={"phone": "0172"},
        opening="Hello. [silence - 2 s] Hi.",
        steps=["[interrupts after 3 words] Yes.", "Bye. [hangs up]"],
        ends={"tools": ["book"], "said": ["reference"], "when": "You have it."},
        expected={
            "outcome": "Booked.",
            "required_tools": ["find", {"tool": "book", "arguments": {"guests": 4, "day": {"one_of": ["Fri", "Sat"]}}}],
            "forbidden_tools": ["cancel", {"tool": "credit", "arguments": {"eur": {"at_least": 10, "at_most": 99}}}],
            "required_phrases": ["recorded"],
            "forbidden_phrases": ["guaranteed"],
            "facts": {"fee": ["49 euros", "forty nine euros"], "reference": "HT-1234"},
        },
        rubric="strict",
        limits={"max_turns": 8, "max_reply_tokens": 300, "reply_s": 5, "call_s": 60.5, "run_s": 120},
        repeats=3,
        tags=["hard-caller"],
    )

    assert parse_scenario(text, source="s.yaml") == Scenario(
        id="plain",
        title="Plain",
        agent="booking",
        play=Play.FREE,
        persona="Old.",
        goal="A table.",
        facts={"phone": "0172"},
        opening="Hello. [silence - 2 s] Hi.",
        steps=("[interrupts after 3 words] Yes.", "Bye. [hangs up]"),
        ends=Ends(("book",), ("reference",), "You have it."),
        expected=ExpectedOutcome(
            call=Expected("Booked.", ("find", "book"), ("cancel",), ("recorded",), ("guaranteed",)),
            required=(
                ToolRule(
                    "book",
                    (
                        ArgumentRule("guests", Match.EQUALS, 4),
                        ArgumentRule("day", Match.ONE_OF, ["Fri", "Sat"]),
                    ),
                ),
            ),
            forbidden=(
                ToolRule("credit", (ArgumentRule("eur", Match.AT_LEAST, 10), ArgumentRule("eur", Match.AT_MOST, 99))),
            ),
            told=(Told("fee", ("49 euros", "forty nine euros")), Told("reference", ("HT-1234",))),
        ),
        rubric="strict",
        limits=Limits(8, 300, 5, 60.5, 120),
        repeats=3,
        tags=("hard-caller",),
    )


def test_what_is_optional_has_defaults() -> None:
    found = parse_scenario(a_file(), source="s.yaml")

    assert (found.play, found.limits, found.repeats) == (Play.SCRIPT, Limits(), 1)
    assert (found.limits.max_turns, found.expected, found.ends) == (20, ExpectedOutcome(), Ends())


def test_without_lines_a_scenario_is_free_play() -> None:
    text = a_file(steps=None, persona="Old.", goal="A table.", opening="Hello.")

    assert parse_scenario(text, source="s.yaml").play is Play.FREE


def test_json_is_read_too() -> None:
    assert parse_scenario(json.dumps(MINIMAL), source="s") == parse_scenario(a_file(), source="s")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"id": None}, "id", "is missing"),
        ({"id": "My Scenario"}, "id", "can't be an id"),
        ({"title": ""}, "title", 'is ""'),
        ({"agent": None}, "agent", "is missing"),
        ({"play": "scripted"}, "play", 'is "scripted"'),
        ({"steps": "Hello."}, "steps", "must be a list"),
        ({"steps": []}, "persona", "is missing"),
        ({"steps": [], "play": "script"}, "steps", "is missing"),
        ({"steps": None}, "persona", "is missing"),
        ({"steps": None, "persona": "Old.", "goal": " "}, "goal", "is missing"),
        ({"play": "free"}, "persona", "is missing"),
        ({"steps": ["Hi.", "[sighs] Yes."]}, "steps[1]", "can't be played: [sighs] is not a marker"),
        ({"steps": ["[silence - 5]"]}, "steps[0]", "has no unit"),
        ({"opening": "(hangs up)"}, "opening", "looks like a marker"),
        ({"opening": "Bye. [hangs up]"}, "opening", "hangs up, and lines follow"),
        ({"steps": ["Bye. [hangs up]", "Hello?"]}, "steps[0]", "hangs up, and lines follow"),
        ({"steps": ["Hi."] * 201}, "steps", "has 201 lines"),
        ({"facts": {"phone": 172}}, "facts.phone", "must be a text"),
        ({"facts": {"phone": " "}}, "facts.phone", "is blank"),
        ({"expected": {"tools": ["book"]}}, "expected.tools", "is not a field"),
        ({"expected": {"required_tools": [{"arguments": {}}]}}, "expected.required_tools[0].tool", "is missing"),
        (
            {"expected": {"required_tools": [{"tool": "b", "arguments": {"n": {"near": 4}}}]}},
            "expected.required_tools[0].arguments.n",
            'has "near", which is no way to compare',
        ),
        (
            {"expected": {"required_tools": [{"tool": "b", "arguments": {"n": {}}}]}},
            "expected.required_tools[0].arguments.n",
            "is empty",
        ),
        (
            {"expected": {"required_tools": [{"tool": "b", "arguments": {"n": {"at_least": "4"}}}]}},
            "expected.required_tools[0].arguments.n.at_least",
            "is a text",
        ),
        (
            {"expected": {"required_tools": [{"tool": "b", "arguments": {"n": {"at_least": True}}}]}},
            "expected.required_tools[0].arguments.n.at_least",
            "is true or false",
        ),
        (
            {"expected": {"required_tools": [{"tool": "b", "arguments": {"n": {"pattern": "("}}}]}},
            "expected.required_tools[0].arguments.n.pattern",
            "is no regular expression",
        ),
        ({"expected": {"facts": {"fee": []}}}, "expected.facts.fee", "is empty"),
        ({"expected": {"facts": {"fee": 49}}}, "expected.facts.fee", "must be a list"),
        ({"limits": {"max_turns": 0}}, "limits.max_turns", "from 1 to 200"),
        ({"limits": {"max_reply_tokens": 5}}, "limits.max_reply_tokens", "from 16 to 128,000"),
        ({"limits": {"reply_s": 0}}, "limits.reply_s", "above 0"),
        ({"limits": {"call_s": float("inf")}}, "limits.call_s", "inf"),
        ({"max_turns": 5}, "max_turns", "is not a field"),
        ({"repeats": 0}, "repeats", "from 1 to 100"),
        ({"repeats": 2.5}, "repeats", "whole number"),
        ({"tags": ["Hard Caller"]}, "tags[0]", "can't be an id"),
        ({"colour": "red"}, "colour", "is not a field"),
        ({"step": ["Hi."], "steps": None}, "step", "is not a field"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str, words: str) -> None:
    error = refused(a_file(**change))

    assert error.field == field
    assert words in error.problem


def test_the_error_names_file_line_field_and_fix() -> None:
    text = "id: plain\ntitle: Plain\nagent: booking\nsteps:\n  - Hello.\n  - >-\n    Well. [pause]\n"

    assert str(refused(text)) == (
        "s.yaml:6: steps[1]: can't be played: [pause] is not a marker. "
        "Write [silence - 15 seconds]; units are s, sec, seconds and minutes"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id: plain\ntitle: Plain\nsteps: [Hi.]\n", 1),
        ("id: plain\ntitle: Plain\nagent: b\nsteps: [Hi.]\nexpected:\n  outcome: x\n  colour: red\n", 7),
        ("id: plain\ntitle: Plain\nagent: b\nsteps: [Hi.]\nfacts:\n  born: 1979-03-12\n", 6),
        ("id: plain\ntitle: [\n", 3),
        ('{"id": "plain",\n "steps": ["Hi."],\n "title": 5}', 3),
        ("id: a\nid: b\n", 2),
    ],
)
def test_every_error_names_its_line(text: str, line: int) -> None:
    assert refused(text).line == line


def test_a_date_without_quotes_says_what_to_do() -> None:
    error = refused(a_file() + "facts:\n  born: 1979-03-12\n")

    assert (error.field, error.fix) == ("facts.born", "Write it as a text, in quotes")


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("steps:\n  - [silence - 5 seconds]\n", "steps[0]"),
        ("steps:\n  - [noise: traffic]\n", "steps[0]"),
        ("steps:\n  - Hello: is anybody there?\n", "steps[0]"),
        ("opening: [hangs up]\n", "opening"),
        ("opening: [silence - 5 seconds] Hi\n", "(file)"),
        ('steps:\n  - [interrupts after "your total"] Hi, there\n', "(file)"),
    ],
)
def test_a_line_that_yaml_reads_otherwise_must_be_put_in_quotes(line: str, at: str) -> None:
    error = refused(f"id: plain\ntitle: T\nagent: booking\n{line}")

    assert (error.field, error.fix) == (at, "Put the line in quotes, such as '[silence - 5 seconds] Hello?'")
    assert error.line == (4 if line.startswith("opening") else 5)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("max_turn: 4", "limits.max_turns"),
        ("max_tokens: 400", "limits.max_reply_tokens"),
        ("limits: {max_turn: 4}", "max_turns"),
        ("limits: {max_tokens: 400}", "max_reply_tokens"),
        ("expected: {required_tools: [{tool: book, args: {guests: 2}}]}", "arguments"),
    ],
)
def test_a_name_that_others_use_gets_the_one_that_is_meant(text: str, meant: str) -> None:
    assert refused(f"id: plain\ntitle: T\nagent: booking\nopening: Hi\n{text}\n").fix == f"Did you mean `{meant}`?"
