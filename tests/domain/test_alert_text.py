"""An alert's document in words for people."""

from __future__ import annotations

import json
from typing import Any

from qa_worker.domain.alert_text import ToldReason, alert_text, as_plain
from tests.documents import a_document


def _body(**data: Any) -> bytes:
    return json.dumps(a_document(**data)).encode()


def test_every_part_of_a_document_is_told() -> None:
    text = alert_text(_body())

    assert (text.title, text.severity, text.event) == ("Evaluation failed: Booking", "critical", "evaluation.failed")
    assert dict(text.facts) == {
        "Severity": "critical",
        "Workspace": "clinic",
        "Agent": "Booking",
        "Rule": "failures",
        "Call": "call-1",
        "Verdict": "fail",
        "Overall": "41 of 100",
        "Matches": "3",
        "Incident": "open",
    }
    assert text.scores == (("compliance", "20"), ("tool_usage", "does not apply"), ("intent", "not scored"))
    assert text.reasons == (
        ToldReason("compliance (critical, turn 2): It asked for the PIN.", "tell me <your> PIN & name"),
    )
    assert text.worst == ("call-2, fail, 12 of 100, overall 12 under 70",)
    assert text.left_out == 4
    assert text.links == (
        ("Open the call", "https://qa.example.com/calls/1"),
        ("Open the alert", "https://qa.example.com/alerts/2"),
    )


def test_plain_text_has_all_of_it() -> None:
    lines = as_plain(alert_text(_body())).splitlines()

    assert "Agent: Booking" in lines
    assert "- compliance (critical, turn 2): It asked for the PIN." in lines
    assert '  "tell me <your> PIN & name"' in lines
    assert "(4 more not shown)" in lines
    assert lines[-1] == "Open the alert: https://qa.example.com/alerts/2"


def test_a_document_with_almost_nothing_is_told_too() -> None:
    text = alert_text(b'{"type": "test"}')

    assert (text.title, text.severity, text.facts, text.reasons) == ("test", "info", (), ())
    assert as_plain(text) == ""
    assert alert_text(b"{}").title == "alert"
