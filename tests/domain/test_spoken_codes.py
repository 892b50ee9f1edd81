from __future__ import annotations

import pytest

from qa_worker.domain.spoken_codes import Known, codes_in


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("It's oh one seven two, five five five, oh one six three.", "01725550163"),
        ("Two oh five one, eight eight six oh.", "20518860"),
        ("My number is 20 51 88 02.", "20518802"),
        ("20518802, that's it", "20518802"),
        ("Reference H T, four eight two one.", "ht4821"),
        ("it is HT-4821", "ht4821"),
        ("order #W2378156", "w2378156"),
        ("double five oh one seven", "55017"),
        ("write to jo.ray@mail.com", "j0raymailc0m"),
        ("A 1 2 3 4 5 I guess", "12345"),
    ],
)
def test_a_code_is_heard_as_it_is_said(said: str, code: str) -> None:
    assert list(codes_in(said)) == [code]


@pytest.mark.parametrize(
    "said",
    [
        "A table for four at half past seven.",
        "The twelfth of March, nineteen seventy nine.",
        "On 2026-11-07, or 07.11.2026, or 07/11/2026.",
        "May 4, 1982; Sept. 27th 1987",
        "zero nine, zero five, nineteen eighty four",
        "That's $1,250.75 or 12500 % of it",
        "twelve thousand five hundred euros",
        "W, A, C, H, O, W, I, A, K",
        "a 15-inch screen, 500ml, the 21st, in 2026",
        "Okay, one second. First, second, third!",
        "double it",
        "Address1, step2",
        "mail f****@domain.com",
    ],
)
def test_dates_amounts_measures_and_letters_are_no_codes(said: str) -> None:
    assert list(codes_in(said)) == []


def test_two_numbers_are_two_codes() -> None:
    assert list(codes_in("From 4983901480 -> 7747408585 (20518802 first)")) == ["4983901480", "7747408585", "20518802"]


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("01725550163", True),
        ("5550163", True),
        ("0172017255", True),
        ("01725550164", False),
        ("99999", False),
        ("ht4821", True),
        ("ht4822", False),
    ],
)
def test_what_the_brief_holds_is_known_whole_and_in_pieces(code: str, known: bool) -> None:  # noqa: FBT001 - a table
    brief = Known(("phone 0172 555 0163", "reference H T, four eight two one"))

    assert (code in brief) is known
