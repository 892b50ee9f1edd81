"""An alert's document for tests of those who show it; see docs/alerts.schema.json."""

from __future__ import annotations

from typing import Any


def a_document(**data: Any) -> dict[str, Any]:
    """A failed evaluation with a bit of everything."""
    told = {
        "alert_id": "7d1c6c1e-7f0c-4a51-a3a5-7c7f0d4a2f11",
        "severity": "critical",
        "title": "Evaluation failed: Booking",
        "detail": "critical:compliance",
        "workspace": {"id": "w", "name": "clinic"},
        "agent": {"id": "a", "ref": "booking", "name": "Booking"},
        "rule": {"id": "r", "name": "failures", "kind": "evaluation_failed"},
        "incident": {"id": "i", "state": "open", "opened_at": "2026-01-31T09:00:00.000Z", "match_count": 3},
        "endpoint": None,
        "call": {"id": "c", "ref": "call-1", "external_id": None},
        "evaluation": {"id": "e"},
        "verdict": "fail",
        "overall": 41,
        "reason_codes": ["critical:compliance"],
        "summary": "The agent asked for a PIN.",
        "scores": [
            {"criterion": "compliance", "score": 20, "applicable": True},
            {"criterion": "tool_usage", "score": None, "applicable": False},
            {"criterion": "intent", "score": None, "applicable": True},
        ],
        "reasons": [
            {
                "criterion": "compliance",
                "severity": "critical",
                "source": "model",
                "turn": 2,
                "quote": "tell me <your> PIN & name",
                "explanation": "It asked for the PIN.",
            }
        ],
        "worst": [
            {
                "at": "2026-01-31T08:59:00.000Z",
                "call": {"id": "d", "ref": "call-2", "external_id": None},
                "evaluation": {"id": "f"},
                "verdict": "fail",
                "overall": 12,
                "detail": "overall 12 under 70",
                "links": {},
            }
        ],
        "counts": {"matches": 3, "listed": 1},
        "left_out": {"scores": 0, "reasons": 4, "worst": 0},
        "links": {"call": "https://qa.example.com/calls/1", "alert": "https://qa.example.com/alerts/2"},
    }
    return {"type": "evaluation.failed", "timestamp": "2026-01-31T09:00:00.000Z", "data": {**told, **data}}
