from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evidence.spoken import Heard, english, fold, fold_spoken

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORD_FOR_DIGIT = dict(zip("0123456789", DIGITS, strict=True))
TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen", "nineteen"),
)
DECADES = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
LETTERS = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo", "lima"),
    *("mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey"),
    *("x-ray", "yankee", "zulu"),
)
WORD_FOR_LETTER = {word[0]: word for word in LETTERS}
CODES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("said", "folded"),
    [
        ("B five O D Z X", "b50dzx"),
        ("eight Juliet Victor Sierra Delta Foxtrot", "8jvsdf"),
        ("M as in Mike, T is in Tango, B for bravo, S like sierra", "mtbs"),
        ("seven three oh", "730"),
        ("double seven triple A double u", "77aaaw"),
        ("one twenty three", "123"),
        ("one two three", "123"),
        ("one hundred twenty three", "123"),
        ("one hundred and twenty-three", "123"),
        ("twelve thirty four", "1234"),
        ("two thousand twenty six", "2026"),
        ("twenty twenty-six", "2026"),
        ("nineteen oh five", "1905"),
        ("seven hundred seventy", "770"),
        ("five hundred thousand", "500000"),
        ("twelve thousand three hundred and four", "12304"),
        ("June tenth", "june10"),
        ("the twenty-first", "21"),
        ("jo dot ray underscore nine at mail dot com", "j0ray9mailc0m"),
        ("capital B, dash, the number six", "b6"),
        ("X-ray zulu", "xz"),
        ("K-Y-F-2-5", "kyf25"),
        ("I’d say 407 555 0138", "idsay40755501" + "38"),
        ("double", "d0uble"),
        ("hundred", "hundred"),
        ("double twenty", "d0uble20"),
        ("", ""),
    ],
)
def test_spelled_codes_and_numbers_fold_to_their_characters(said: str, folded: str) -> None:
    assert fold_spoken(said) == folded


def test_folding_keeps_letters_and_digits_and_makes_o_a_zero() -> None:
    assert fold("#W-2378 156_Oo") == "w237815600"


@given(CODES, st.lists(st.sampled_from(("word", "nato", "plain")), min_size=12, max_size=12))
def test_any_code_spelled_out_folds_to_the_code(code: str, ways: list[str]) -> None:
    assert fold_spoken(" ".join(map(_spelled, code, ways))) == fold(code)


def _spelled(character: str, way: str) -> str:
    if character.isdigit():
        return character if way == "plain" else WORD_FOR_DIGIT[character]
    return WORD_FOR_LETTER[character.lower()] if way == "nato" else character


@given(st.integers(1, 9), st.integers(10, 99))
def test_a_number_read_in_groups_is_its_digits(first: int, rest: int) -> None:
    unit = WORD_FOR_DIGIT[str(rest % 10)] if rest % 10 else ""
    group = TEENS[rest - 10] if rest < 20 else f"{DECADES[rest // 10 - 2]} {unit}".strip()
    assert fold_spoken(f"{WORD_FOR_DIGIT[str(first)]} {group}") == f"{first}{rest}"


@given(st.integers(1, 9), st.integers(0, 9), st.text("ABC", max_size=2))
def test_double_and_triple_repeat_the_next_character(digit: int, other: int, prefix: str) -> None:
    said = f"{' '.join(prefix)} double {WORD_FOR_DIGIT[str(digit)]} triple {WORD_FOR_DIGIT[str(other)]}"
    assert fold_spoken(said) == f"{prefix.lower()}{digit}{digit}{other}{other}{other}"


@given(st.text())
def test_folding_any_text_gives_lower_case_letters_and_digits(text: str) -> None:
    assert all(character.isalnum() for character in fold_spoken(text))
    assert "o" not in fold_spoken(text)


def test_a_code_is_heard_where_it_is_complete_for_the_first_time() -> None:
    heard = Heard(["the code is", "B five O", "D Z X", "B5ODZX it is"])
    assert heard.first(fold("B5O")) == 1
    assert heard.first(fold("B5ODZX")) == 2
    assert heard.first(fold("B5ODZY")) is None


def test_a_code_is_known_from_the_text_on_that_completes_it() -> None:
    heard = Heard(["the code is", "B five O", "D Z X"])
    assert [heard.by(number, fold("B5ODZX")) for number in (-1, 0, 1, 2)] == [False, False, False, True]
    assert not heard.by(2, fold("B5ODZY"))


def test_a_code_is_heard_as_written_too() -> None:
    assert Heard(["", "my email is mike.hotel@example.com"]).first(fold("mike.hotel@example.com")) == 1


def test_written_texts_are_not_searched_for_spelled_codes() -> None:
    assert Heard(["one two three four"], spoken=False).first("1234") is None


@given(st.lists(st.text("AB12 ", max_size=8), max_size=6), st.integers(0, 5))
def test_every_text_is_heard_at_its_own_place_or_before(texts: list[str], place: int) -> None:
    if place < len(texts) and fold(texts[place]):
        first = Heard(texts).first(fold(texts[place]))
        assert first is not None
        assert first <= place


@pytest.mark.parametrize(
    ("text", "is_english"),
    [
        ("Hi, I need to change my flight and I would like to know what that costs, please", True),
        ("Sure, can you tell me the code? It is B five O D Z X, and my last name is Ramirez.", True),
        ("Buenos días, quisiera cambiar mi vuelo del martes al jueves por la mañana si es posible", False),
        ("Guten Tag, ich möchte meinen Flug am Dienstag umbuchen, was kostet das in der Regel bei Ihnen", False),
        ("Bonjour, je voudrais changer mon vol de mardi pour jeudi matin si cela est possible", False),
        ("Hola", True),
        ("", True),
    ],
)
def test_english_is_told_from_other_languages(text: str, *, is_english: bool) -> None:
    assert english([text]) is is_english


def test_the_first_words_tell_the_language() -> None:
    begins_in_english = ["I would like to move my appointment to Friday if that is at all possible for you. " * 20]
    begins_in_german = ["Ich würde gerne meinen Termin auf Freitag verschieben, wenn das irgendwie möglich ist. " * 30]

    assert english([*begins_in_english, *begins_in_german])
    assert not english([*begins_in_german, *begins_in_english])
