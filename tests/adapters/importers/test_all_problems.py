"""Everything that is wrong with a scenario file, where `parse_scenario` stops at the first."""

from __future__ import annotations

import pytest

from qa_worker.adapters.importers.scenario import parse_scenario, scenario_problems
from qa_worker.domain.errors import InvalidInput

GOOD = "id: plain\ntitle: Plain\nagent: booking\nopening: A table, please.\nsteps: [Goodbye.]\n"
BAD = "id: Plain\ntitle: Plain\nagent: booking\nopening: Hello [silence]\nsteps:\n  - Yes.\n  - 3\nnonsense: {}\n"


def test_every_problem_has_its_line_field_and_fix() -> None:
    problems = scenario_problems(BAD, source="bad.yaml")

    assert [(one.source, one.line, one.field) for one in problems] == [
        ("bad.yaml", 1, "id"),
        ("bad.yaml", 4, "opening"),
        ("bad.yaml", 7, "steps[1]"),
        ("bad.yaml", 8, "nonsense"),
    ]
    assert all(one.problem and one.fix and "first of" not in one.problem for one in problems)


def test_the_first_of_them_is_what_reading_raises() -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_scenario(BAD, source="bad.yaml")

    assert str(raised.value).startswith("bad.yaml:1: id: ")
    assert "(first of 4 problems)" in str(raised.value)


def test_a_good_file_has_none_and_a_torn_one_has_one() -> None:
    assert scenario_problems(GOOD, source="good.yaml") == ()
    (torn,) = scenario_problems("id: [", source="torn.yaml")
    assert torn.source == "torn.yaml"
