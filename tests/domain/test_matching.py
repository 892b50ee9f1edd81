from __future__ import annotations

from typing import Any

import pytest

from qa_worker.domain.matching import ArgumentRule, Match, unmet


def holds(match: Match, wanted: Any, given: Any) -> bool:
    return not unmet([ArgumentRule("x", match, wanted)], {"x": given})


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (4, 4),
        (4, 4.0),
        (4, "4"),
        ("4", 4),
        ("01725550148", "0172 555 0148"),
        ("HT-4821", "ht4821"),
        ("2026-11-07", "2026-11-07"),
        (" Moreau", "moreau"),
        ("+", "+"),
        (True, True),
        (None, None),
        ([1, 2], [1, 2]),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_equal_is_what_means_the_same(wanted: Any, given: Any) -> None:
    assert holds(Match.EQUALS, wanted, given)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [(4, 5), ("4", "5"), (True, 1), (1, True), ("yes", True), (None, ""), ("+", "-"), ([1, 2], [2, 1]), ("1", "1.0")],
)
def test_other_values_are_not_equal(wanted: Any, given: Any) -> None:
    assert not holds(Match.EQUALS, wanted, given)


@pytest.mark.parametrize(
    ("match", "wanted", "given", "fits"),
    [
        (Match.ONE_OF, ["19:00", "19:30"], "19:30", True),
        (Match.ONE_OF, [1, 2], "2", True),
        (Match.ONE_OF, ["19:00"], "20:00", False),
        (Match.CONTAINS, "moreau", "Mrs. Moreau", True),
        (Match.CONTAINS, "more", "Mrs. Moreau", False),
        (Match.PATTERN, "vaccin", "Vaccination of Leo", True),
        (Match.PATTERN, "^leo", "for Leo", False),
        (Match.AT_LEAST, 10.01, 10, False),
        (Match.AT_LEAST, 10, "10", True),
        (Match.AT_MOST, 4, 3, True),
        (Match.AT_MOST, 4, "many", False),
        (Match.AT_MOST, 4, True, False),
        (Match.PRESENT, True, "anything", True),
        (Match.PRESENT, True, None, False),
        (Match.PRESENT, False, None, True),
        (Match.PRESENT, False, "anything", False),
    ],
)
def test_other_ways_to_compare(match: Match, wanted: Any, given: Any, fits: bool) -> None:  # noqa: FBT001 - a table
    assert holds(match, wanted, given) is fits


def test_an_argument_that_is_not_there_meets_only_its_absence() -> None:
    rules = [ArgumentRule("x", Match.EQUALS, None), ArgumentRule("x", Match.PRESENT, False)]  # noqa: FBT003 - a value

    assert unmet(rules, {}) == (rules[0],)


def test_a_path_leads_into_objects_unless_the_name_itself_holds_a_point() -> None:
    rule = ArgumentRule("guest.name", Match.EQUALS, "Hobbs")

    assert not unmet([rule], {"guest": {"name": "Hobbs"}})
    assert not unmet([rule], {"guest.name": "Hobbs"})
    assert unmet([rule], {"guest": "Hobbs"})


def test_a_rule_says_what_it_wants() -> None:
    rules = (
        ArgumentRule("guests", Match.EQUALS, 4),
        ArgumentRule("guests", Match.AT_MOST, 4),
        ArgumentRule("date", Match.PRESENT, False),  # noqa: FBT003 - a value
    )

    assert [str(rule) for rule in rules] == ["guests = 4", "guests at most 4", "date not given"]
