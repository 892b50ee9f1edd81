from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qa_worker.domain.answer_text import MAX_CHARS
from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding
from qa_worker.domain.reading import (
    MAX_EXPLANATION_CHARS,
    MAX_FINDINGS,
    MAX_QUOTE_CHARS,
    MAX_SUMMARY_CHARS,
    Reason,
    Unreadable,
    answer_schema,
    read_assessment,
)
from qa_worker.domain.rubric import Criterion, Rubric, Severity
from tests.domain.grading_samples import RUBRIC, answer, answer_text

GOOD = Assessment(
    levels=(
        CriterionLevel("accuracy", 2, "Wrong time in turn 4."),
        CriterionLevel("policy", 5, "Two guests."),
    ),
    findings=(Finding("accuracy", Severity.MAJOR, "Turn 1 asked for eight.", 4, "booked for nine"),),
    summary="The caller wanted a table.",
)


def finding(**changes: Any) -> dict[str, Any]:
    return dict(answer()["findings"][0]) | changes


def with_level(value: Any) -> str:
    levels = answer()["criteria"]
    return answer_text(criteria=levels | {"policy": levels["policy"] | {"level": value}})


def reason(text: str) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        read_assessment(text, rubric=RUBRIC)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        answer_text(),
        f"\n  {answer_text()}\n",
        f"Here is my assessment:\n{answer_text()}\nThank you.",
        f"```json\n{answer_text()}\n```",
        f"I looked at {{all}} turns.\n```\n{json.dumps(answer(), indent=2)}\n```\nDone {{.",
        f"```json\n{answer_text()}",
        f'First {{"note": 1}}, then {answer_text()}',
        f"{answer_text()}\n{answer_text()}",
        "\ufeff" + answer_text(),
        answer_text(confidence=0.9, criteria=answer()["criteria"] | {"charm": {"level": 9}}),
    ],
    ids=[
        "bare", "blanks", "prose", "fence", "braces around a fence", "open fence", "another object", "twice the same",
        "byte order mark", "extra keys",
    ],
)  # fmt: skip
def test_a_good_answer_is_read_whatever_is_around_it(text: str) -> None:
    assert read_assessment(text, rubric=RUBRIC) == GOOD


def test_ids_and_severities_may_differ_in_case() -> None:
    levels = answer()["criteria"]
    shouted = answer_text(
        findings=[finding(criterion="Accuracy", severity="MAJOR")],
        criteria={"ACCURACY": levels["accuracy"], " Policy ": levels["policy"]},
    )
    assert read_assessment(shouted, rubric=RUBRIC) == GOOD


def test_the_level_of_what_is_not_applicable_is_no_measurement() -> None:
    levels = answer()["criteria"]
    levels["policy"] |= {"applicable": False, "level": 3}
    read = read_assessment(answer_text(criteria=levels), rubric=RUBRIC)
    assert read.levels[1] == CriterionLevel("policy", None, "Two guests.", applicable=False)


@pytest.mark.parametrize("level", [0, 6, -1, 10**30])
def test_a_level_outside_1_to_5_is_refused(level: int) -> None:
    error = reason(with_level(level))
    assert (error.reason, error.where) == (Reason.UNKNOWN_VALUE, "criteria.policy.level")


@pytest.mark.parametrize("level", [True, "3", 3.0, None, [3], "three"])
def test_a_level_that_is_no_integer_is_refused(level: Any) -> None:
    assert reason(with_level(level)).reason is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (answer_text(criteria={"accuracy": answer()["criteria"]["accuracy"]}), "criteria.policy"),
        (json.dumps({k: v for k, v in answer().items() if k != "summary"}), "summary"),
        (json.dumps({k: v for k, v in answer().items() if k != "findings"}), "findings"),
        (json.dumps({k: v for k, v in answer().items() if k != "criteria"}), "criteria"),
        (answer_text(findings=[{k: v for k, v in finding().items() if k != "quote"}]), "findings[0].quote"),
        ("{}", "findings"),
    ],
)
def test_what_the_schema_asks_for_must_be_there(text: str, where: str) -> None:
    error = reason(text)
    assert (error.reason, error.where) == (Reason.MISSING, where)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (answer_text(findings=[finding(), finding(severity="catastrophic")]), "findings[1].severity"),
        (answer_text(findings=[finding(criterion="charm")]), "findings[0].criterion"),
    ],
)
def test_an_unknown_name_is_refused(text: str, where: str) -> None:
    error = reason(text)
    assert (error.reason, error.where) == (Reason.UNKNOWN_VALUE, where)


@pytest.mark.parametrize(
    "text",
    [
        answer_text(findings={}),
        answer_text(findings=["wrong time"]),
        answer_text(findings=[finding(turn="4")]),
        answer_text(findings=[finding(turn=True)]),
        answer_text(summary=None),
        answer_text(criteria=[]),
        answer_text(criteria={"accuracy": 2, "policy": 5}),
        json.dumps([answer()]),
        json.dumps(answer_text()),
        "5",
    ],
)
def test_a_value_of_another_type_is_refused(text: str) -> None:
    assert reason(text).reason is Reason.WRONG_TYPE


def test_every_way_of_cutting_a_good_answer_is_refused() -> None:
    text = answer_text()
    wrapped = f"Here it is: {text}"
    for end in range(len(text)):
        assert reason(text[:end]).reason in (Reason.CUT, Reason.EMPTY)
        assert reason(wrapped[: len(wrapped) - len(text) + end]).reason in (Reason.CUT, Reason.NO_JSON)


def test_a_whole_answer_inside_something_cut_is_not_taken() -> None:
    assert reason(f'{{"result": {answer_text()}').reason is Reason.CUT
    assert reason(f'{{"result": {answer_text()}}}').where == "findings"
    assert reason(f"{{oops: {answer_text()}}}").reason is Reason.NO_JSON


def test_two_answers_that_differ_are_refused() -> None:
    other = answer_text(findings=[])
    assert reason(f"{answer_text()} or rather {other}").reason is Reason.CONFLICTING
    assert reason(f"```json\n{answer_text()}\n```\nor rather\n```json\n{other}\n```").reason is Reason.CONFLICTING
    assert reason(f"{other}\n```json\n{answer_text()}\n```").reason is Reason.CONFLICTING


def test_a_key_that_is_there_twice_is_refused() -> None:
    twice = with_level(5).replace('"level": 5', '"level": 1, "level": 5')
    assert reason(twice).reason is Reason.DUPLICATE_KEY
    levels = answer()["criteria"]
    assert reason(answer_text(criteria=levels | {"Policy": levels["policy"]})).reason is Reason.DUPLICATE_KEY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Reason.EMPTY),
        (" \n", Reason.EMPTY),
        ("I cannot grade this call.", Reason.NO_JSON),
        ("null", Reason.NO_JSON),
        ("NaN", Reason.NO_JSON),
        ("x" * (MAX_CHARS + 1), Reason.TOO_LONG),
        ("{" * 100_000, Reason.CUT),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, Reason.TOO_LONG),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, Reason.NO_JSON),
        (with_level(5).replace('"level": 5', f'"level": {"9" * 5_000}'), Reason.NO_JSON),
    ],
)
def test_what_holds_no_answer_is_refused_with_the_reason(text: str, expected: Reason) -> None:
    assert reason(text).reason is expected


def test_the_reason_shows_nothing_of_the_answer() -> None:
    secret = "4111 1111 1111 1111"
    error = reason(answer_text(findings=[finding(criterion=secret)]))
    assert secret not in str(error)
    assert str(error) == "the answer could not be used: unknown_value at findings[0].criterion"


def test_texts_are_cut_to_a_sane_length() -> None:
    levels = answer()["criteria"]
    levels["policy"]["explanation"] = "e" * 10_000
    read = read_assessment(
        answer_text(summary="s" * 10_000, findings=[finding(quote="q" * 10_000)], criteria=levels), rubric=RUBRIC
    )
    assert len(read.summary) == MAX_SUMMARY_CHARS
    assert read.summary.endswith("s…")
    assert len(read.levels[1].explanation) == MAX_EXPLANATION_CHARS
    # a part of what was said is still what was said; with an ellipsis it would not be
    assert read.findings[0].quote == "q" * MAX_QUOTE_CHARS


def test_of_too_many_findings_the_worst_are_kept_in_their_order() -> None:
    minor = [finding(severity="minor", turn=n) for n in range(MAX_FINDINGS)]
    many = [*minor, finding(severity="critical", turn=70), finding(severity="major", turn=71)]
    read = read_assessment(answer_text(findings=many), rubric=RUBRIC)
    assert [f.turn for f in read.findings] == [*range(MAX_FINDINGS - 2), 70, 71]


@pytest.mark.parametrize(("turn", "expected"), [(0, 0), (4, 4), (-1, None), (10**12, None)])
def test_a_turn_that_cannot_be_one_is_no_turn(turn: int, expected: int | None) -> None:
    read = read_assessment(answer_text(findings=[finding(turn=turn)]), rubric=RUBRIC)
    assert read.findings[0].turn == expected


def test_characters_that_no_database_holds_are_taken_out() -> None:
    text = answer_text(summary="a\x00b\ud800c\x1b[31m\nd\t😀")
    assert read_assessment(text, rubric=RUBRIC).summary == "ab\ufffdc[31m\nd\t😀"


def test_the_schema_writes_findings_before_levels() -> None:
    schema = answer_schema(RUBRIC)
    assert list(schema["properties"]) == schema["required"] == ["summary", "findings", "criteria"]
    item = schema["properties"]["findings"]["items"]
    assert item["required"] == ["criterion", "severity", "turn", "quote", "explanation"]
    assert item["properties"]["criterion"]["enum"] == ["accuracy", "policy"]
    levels = schema["properties"]["criteria"]
    assert levels["required"] == ["accuracy", "policy"]
    assert levels["properties"]["policy"]["required"] == ["explanation", "applicable", "level"]
    assert levels["properties"]["policy"]["properties"]["level"]["enum"] == [1, 2, 3, 4, 5]


def every_object(schema: Any) -> list[dict[str, Any]]:
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    inner = [found for part in parts for found in every_object(part)]
    return [schema, *inner] if isinstance(schema, dict) else inner


def test_the_schema_stays_within_what_the_api_compiles() -> None:
    refused = {"minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems", "minItems", "pattern"}
    for part in every_object(answer_schema(RUBRIC)):
        assert not refused & part.keys()
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])


WORD = st.text(st.characters(codec="utf-8", exclude_characters="{}`"), max_size=80)
PROPERTY_TEXT = st.text(max_size=60)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    findings = st.fixed_dictionaries(
        {
            "criterion": st.sampled_from(["accuracy", "Policy"]),
            "severity": st.sampled_from(["minor", "MAJOR", "critical"]),
            "turn": st.integers(-2, 50),
            "quote": PROPERTY_TEXT,
            "explanation": PROPERTY_TEXT,
        }
    )
    level = st.fixed_dictionaries(
        {"explanation": PROPERTY_TEXT, "applicable": st.booleans(), "level": st.integers(1, 5)}
    )
    return {
        "summary": draw(PROPERTY_TEXT),
        "findings": draw(st.lists(findings, max_size=3)),
        "criteria": {"accuracy": draw(level), "policy": draw(level)},
    }


@given(answers(), WORD, WORD, st.sampled_from([None, 2]))
def test_prose_or_a_fence_around_an_answer_changes_nothing(
    given_answer: dict[str, Any], before: str, after: str, indent: int | None
) -> None:
    text = json.dumps(given_answer, ensure_ascii=indent is None, indent=indent)
    plain = read_assessment(text, rubric=RUBRIC)
    assert read_assessment(f"{before}\n{text}\n{after}", rubric=RUBRIC) == plain
    assert read_assessment(f"{before}\n```json\n{text}\n```\n{after}", rubric=RUBRIC) == plain


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["summary", "findings", "criteria", "accuracy", "policy", "level", "applicable", "quote"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.one_of(st.text(), JSON_VALUES.map(json.dumps), st.tuples(WORD, JSON_VALUES.map(json.dumps)).map("".join)))
@example('{"criteria": {}}{"criteria": {}}')
@example('```\n{"criteria": 1}\n```\n```')
def test_any_text_is_either_an_assessment_or_unreadable(text: str) -> None:
    try:
        read = read_assessment(text, rubric=RUBRIC)
    except Unreadable:
        return
    assert [level.criterion for level in read.levels] == ["accuracy", "policy"]


@given(answers(), st.data())
def test_one_damaged_place_never_gives_an_assessment_with_holes(
    given_answer: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(given_answer)
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.sampled_from(["", "{", "}", '"', ",", "0", "\\"])) + text[at + 1 :]
    try:
        read = read_assessment(damaged, rubric=RUBRIC)
    except Unreadable:
        return
    assert all(level.level in (1, 2, 3, 4, 5) for level in read.levels if level.applicable)
    assert len(read.levels) == len(RUBRIC.criteria)
    json.dumps(read.summary, ensure_ascii=False).encode()


def test_a_rubric_of_one_criterion_is_read_too() -> None:
    one = replace(RUBRIC, criteria=(Criterion("tone", "Tone", "Kind?", {1: "no", 5: "yes"}),))
    assert isinstance(one, Rubric)
    text = answer_text(findings=[], criteria={"tone": {"explanation": "", "applicable": True, "level": 1}})
    assert read_assessment(text, rubric=one).levels == (CriterionLevel("tone", 1),)
