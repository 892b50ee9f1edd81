from __future__ import annotations

import json

import pytest

from qa_worker.adapters.importers.yaml_lines import line_of

TEXT = """\
id: a
steps:
  - one
  - say: two
    note: x
expected:
  facts: {fee: "49", "the end": "6"}
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("id", 1),
        ("steps", 2),
        ("steps[0]", 3),
        ("steps[1].note", 5),
        ("steps[7]", 2),
        ("steps[0].say", 3),
        ("expected.facts.fee", 7),
        ('expected.facts["the end"]', 7),
        ('expected.facts["the en..."]', 7),
        ("expected.outcome", 6),
        ("nothing", 1),
        ("(file)", 1),
    ],
)
def test_a_field_is_found_or_what_would_hold_it(field: str, line: int) -> None:
    assert line_of(TEXT, field) == line


def test_json_has_lines_too() -> None:
    assert line_of(json.dumps({"id": "a", "steps": ["one"]}, indent=2), "steps[0]") == 4


@pytest.mark.parametrize("text", ["a: [", "", "\t\tx: 1\n\ty: 2"])
def test_what_can_not_be_read_has_no_line(text: str) -> None:
    assert line_of(text, "a") is None
