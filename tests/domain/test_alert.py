"""What an alert says: valid under its schema, always small enough, the same bytes for the same content."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_worker.domain.alert import (
    EVENT_OF,
    MAX_BYTES,
    AlertEvent,
    CalledBy,
    Case,
    Content,
    EndpointName,
    Named,
    body_of,
)
from qa_worker.domain.alert_content import About, content_of
from qa_worker.domain.alert_rule import CONDITIONS, OF_EVALUATIONS, OF_SYSTEM, AlertSeverity, RuleKind
from qa_worker.domain.evaluation import CriterionScore
from qa_worker.domain.incident import Say, begin, fold
from qa_worker.domain.rubric import Severity
from tests.builders import a_finding
from tests.domain.test_alert_rule import a_rule

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "alerts.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
AT = datetime(2026, 1, 31, 9, 0, 0, 123456, UTC)
WORKSPACE = Named(uuid.UUID(int=1), "clinic")
AGENT = Named(uuid.UUID(int=2), "Booking", "booking-agent")
INCIDENT = uuid.UUID(int=3)
URL = "https://qa.example.com/"


def a_case(overall: int | None = 35, **fields: Any) -> Case:
    """A failed call with a score and a finding."""
    case = Case(
        detail="failed: below_threshold",
        at=AT,
        call=CalledBy(uuid.UUID(int=4), "call-1", "platform-1"),
        evaluation_id=uuid.UUID(int=5),
        verdict="fail",
        overall=overall,
        reasons=("below_threshold",),
        summary="The agent booked the wrong day.",
        scores=(CriterionScore("compliance", 25, 2, applicable=True, weight=1.0),),
        findings=(a_finding("tool_usage", Severity.MINOR), a_finding("compliance", Severity.CRITICAL)),
    )
    return replace(case, **fields)


def an_alert(
    kind: RuleKind = RuleKind.EVALUATION_FAILED, say: Say = Say.OPENED, *, cases: tuple[Case, ...], matches: int = 1
) -> Content:
    """What is said of an incident of this kind."""
    about = About(a_rule(kind), WORKSPACE, None if kind in OF_SYSTEM else AGENT, INCIDENT, public_url=URL)
    incident = fold(begin(AT), matches=max(matches, 1), now=AT, cooldown_s=900).incident
    if say is Say.RESOLVED:
        incident = replace(incident, resolved_at=AT)
    return content_of(about, incident, say, matches=matches, cases=cases, at=AT)


def document(content: Content) -> dict[str, Any]:
    """The document, checked against its schema."""
    read: dict[str, Any] = json.loads(body_of(content))
    VALIDATOR.validate(read)
    return read


def test_a_failed_call_is_told_with_its_scores_quotes_and_links() -> None:
    told = document(an_alert(cases=(a_case(),)))

    assert (told["type"], told["timestamp"]) == ("evaluation.failed", "2026-01-31T09:00:00.123Z")
    data = told["data"]
    assert data["title"] == "Booking: failed: below_threshold"
    assert data["workspace"] == {"id": str(WORKSPACE.id), "name": "clinic"}
    assert data["agent"] == {"id": str(AGENT.id), "ref": "booking-agent", "name": "Booking"}
    assert data["call"] == {"id": str(uuid.UUID(int=4)), "ref": "call-1", "external_id": "platform-1"}
    assert (data["verdict"], data["overall"], data["reason_codes"]) == ("fail", 35, ["below_threshold"])
    assert data["scores"] == [{"criterion": "compliance", "score": 25, "applicable": True}]
    assert [(r["severity"], r["quote"]) for r in data["reasons"]] == [
        ("critical", "Your appointment is on Friday"),
        ("minor", "Your appointment is on Friday"),
    ]
    assert data["links"]["call"] == f"https://qa.example.com/calls/{uuid.UUID(int=4)}"
    assert data["links"]["alert"] == f"https://qa.example.com/alerts/{data['alert_id']}"
    assert data["worst"] == []


@pytest.mark.parametrize("kind", OF_EVALUATIONS)
def test_every_kind_of_evaluation_rule_has_a_valid_event(kind: RuleKind) -> None:
    assert document(an_alert(kind, cases=(a_case(),)))["type"] == EVENT_OF[kind].value


@pytest.mark.parametrize("kind", [*CONDITIONS, RuleKind.RUN_FAILED, RuleKind.SUITE_FAILED])
def test_what_is_about_no_call_has_none(kind: RuleKind) -> None:
    told = document(an_alert(kind, cases=(Case("12 of 40 judged calls failed", AT),)))

    assert told["type"] == EVENT_OF[kind].value
    assert told["data"]["detail"] == "12 of 40 judged calls failed"
    assert told["data"]["call"] is None
    assert (told["data"]["agent"] is None) == (kind in OF_SYSTEM)


def test_a_digest_counts_what_it_tells_of_and_lists_the_worst() -> None:
    cases = tuple(a_case(overall) for overall in range(12))

    told = document(an_alert(say=Say.DIGEST, cases=cases, matches=40))

    assert told["type"] == "incident.updated"
    assert told["data"]["title"] == "Booking: more 'a rule', 40 matches"
    assert told["data"]["counts"] == {"matches": 40, "listed": 10}
    assert [case["overall"] for case in told["data"]["worst"]] == list(range(10))
    assert told["data"]["incident"]["match_count"] == 40
    assert told["data"]["call"] is None


def test_a_digest_of_one_match_is_told_as_that_match() -> None:
    told = document(an_alert(say=Say.DIGEST, cases=(a_case(),), matches=1))

    assert told["type"] == "evaluation.failed"
    assert told["data"]["overall"] == 35


def test_several_matches_that_open_an_incident_are_told_by_the_worst_and_listed() -> None:
    told = document(an_alert(cases=(a_case(5), a_case(30)), matches=2))

    assert (told["type"], told["data"]["overall"]) == ("evaluation.failed", 5)
    assert [case["overall"] for case in told["data"]["worst"]] == [5, 30]


def test_an_end_is_told_as_information() -> None:
    told = document(an_alert(say=Say.RESOLVED, cases=(), matches=0))

    assert told["type"] == "incident.resolved"
    assert (told["data"]["severity"], told["data"]["incident"]["state"]) == ("info", "resolved")


@pytest.mark.parametrize("event", [AlertEvent.ENDPOINT_DISABLED, AlertEvent.TEST])
def test_what_is_about_an_endpoint_names_it(event: AlertEvent) -> None:
    endpoint = EndpointName(uuid.UUID(int=6), "ops", "webhook")

    told = document(
        Content(
            uuid.UUID(int=7), event, AlertSeverity.WARNING, "ops was switched off", AT, WORKSPACE, endpoint=endpoint
        )
    )

    assert told["data"]["endpoint"] == {"id": str(uuid.UUID(int=6)), "name": "ops", "kind": "webhook"}
    assert told["data"]["links"] == {}


def test_every_event_is_in_the_schema() -> None:
    assert SCHEMA["properties"]["type"]["enum"] == [event.value for event in AlertEvent]
    assert SCHEMA["$defs"]["rule"]["properties"]["kind"]["enum"] == [kind.value for kind in RuleKind]


def test_the_schema_refuses_a_failed_evaluation_without_its_call() -> None:
    told = json.loads(body_of(an_alert(cases=(replace(a_case(), call=None),))))

    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(told)


def test_the_same_content_has_the_same_bytes() -> None:
    assert body_of(an_alert(cases=(a_case(),))) == body_of(an_alert(cases=(a_case(),)))


def test_the_same_thing_is_never_said_twice_under_two_ids() -> None:
    opened, digest = an_alert(cases=(a_case(),)), an_alert(say=Say.DIGEST, cases=(a_case(),), matches=3)

    assert opened.alert_id == an_alert(cases=(a_case(),)).alert_id
    assert digest.alert_id != opened.alert_id


def test_what_is_left_out_is_counted() -> None:
    finding = a_finding("compliance", Severity.MAJOR, quote="ä" * 5000)
    told = document(an_alert(cases=(a_case(findings=(finding,) * 200),)))

    kept = told["data"]["reasons"]
    assert len(kept) + told["data"]["left_out"]["reasons"] == 200
    assert kept
    assert all(len(reason["quote"]) == 500 and reason["quote"].endswith("…") for reason in kept)


texts = st.sampled_from(["", "short", "ä" * 3000, "\x01" * 3000, "😀" * 3000, '"\\' * 3000])


@settings(max_examples=40)
@given(text=texts, items=st.sampled_from([0, 1, 50, 300]), say=st.sampled_from([Say.OPENED, Say.DIGEST, Say.RESOLVED]))
def test_whatever_was_said_the_document_is_valid_and_below_its_limit(text: str, items: int, say: Say) -> None:
    score = CriterionScore(text, 1, 1, applicable=True, weight=1)
    case = a_case(
        call=CalledBy(uuid.UUID(int=4), text, text),
        reasons=(text,) * items,
        summary=text,
        detail=text,
        scores=(score,) * items,
        findings=(replace(a_finding(text), explanation=text, quote=text),) * items,
    )
    content = an_alert(say=say, cases=(case,) * max(items, 1), matches=max(items, 1))
    named = replace(content, workspace=Named(WORKSPACE.id, text), agent=Named(AGENT.id, text, text))

    assert len(body_of(named)) < MAX_BYTES
    document(named)


def test_the_example_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    example = page.split("```json")[1].split("```")[0]

    VALIDATOR.validate(json.loads(example))
    for event in AlertEvent:
        assert f"`{event.value}`" in page or f"`.{event.value.partition('.')[2]}`" in page
