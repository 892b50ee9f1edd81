"""An alert's document in words for people: what chats and mails show. See `alert` for the document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LINKS = {"call": "Open the call", "alert": "Open the alert"}


@dataclass(frozen=True, slots=True)
class ToldReason:
    """What went wrong, and the words in the call that show it (empty where there are none)."""

    text: str
    quote: str = ""


@dataclass(frozen=True, slots=True)
class AlertText:
    """One alert, part by part, none of it formatted. `facts` are (label, value)."""

    event: str
    title: str
    severity: str
    at: str
    facts: tuple[tuple[str, str], ...] = ()
    detail: str = ""
    summary: str = ""
    scores: tuple[tuple[str, str], ...] = ()
    reasons: tuple[ToldReason, ...] = ()
    worst: tuple[str, ...] = ()
    left_out: int = 0
    links: tuple[tuple[str, str], ...] = ()


def alert_text(body: bytes) -> AlertText:
    """The parts of an alert's document. Parts that it lacks are empty: there may be older documents."""
    document = json.loads(body)
    data: Mapping[str, Any] = document.get("data") or {}
    event = str(document.get("type", ""))
    left_out = data.get("left_out") or {}
    return AlertText(
        event=event,
        title=str(data.get("title") or event or "alert"),
        severity=str(data.get("severity") or "info"),
        at=str(document.get("timestamp", "")),
        facts=tuple(_facts(data)),
        detail=str(data.get("detail") or ""),
        summary=str(data.get("summary") or ""),
        scores=tuple((one["criterion"], _score(one)) for one in data.get("scores") or ()),
        reasons=tuple(_reason(one) for one in data.get("reasons") or ()),
        worst=tuple(_case(one) for one in data.get("worst") or ()),
        left_out=sum(left_out.values()),
        links=tuple((_LINKS.get(name, name), url) for name, url in (data.get("links") or {}).items()),
    )


def as_plain(text: AlertText) -> str:
    """The whole alert as lines of plain text."""
    lines = [f"{label}: {value}" for label, value in text.facts]
    lines += [part for part in (text.detail, text.summary) if part]
    lines += [f"{name}: {score}" for name, score in text.scores]
    for reason in text.reasons:
        lines.append(f"- {reason.text}")
        if reason.quote:
            lines.append(f'  "{reason.quote}"')
    lines += [f"- {case}" for case in text.worst]
    if text.left_out:
        lines.append(f"({text.left_out} more not shown)")
    lines += [f"{label}: {url}" for label, url in text.links]
    return "\n".join(lines)


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    call, matches = data.get("call") or {}, (data.get("counts") or {}).get("matches", 0)
    overall = data.get("overall")
    told = [
        ("Severity", data.get("severity")),
        ("Workspace", _name(data.get("workspace"))),
        ("Agent", _name(data.get("agent"))),
        ("Rule", _name(data.get("rule"))),
        ("Endpoint", _name(data.get("endpoint"))),
        ("Call", call.get("ref")),
        ("Verdict", data.get("verdict")),
        ("Overall", None if overall is None else f"{overall} of 100"),
        ("Matches", matches if matches > 1 else None),
        ("Incident", (data.get("incident") or {}).get("state")),
    ]
    return [(label, str(value)) for label, value in told if value not in (None, "")]


def _name(thing: Mapping[str, Any] | None) -> str:
    return str((thing or {}).get("name") or (thing or {}).get("ref") or "")


def _score(score: Mapping[str, Any]) -> str:
    if not score.get("applicable", True):
        return "does not apply"
    return "not scored" if score.get("score") is None else str(score["score"])


def _reason(reason: Mapping[str, Any]) -> ToldReason:
    turn = "" if reason.get("turn") is None else f", turn {reason['turn']}"
    text = f"{reason.get('criterion', '')} ({reason.get('severity', '')}{turn}): {reason.get('explanation', '')}"
    return ToldReason(text, str(reason.get("quote") or ""))


def _case(case: Mapping[str, Any]) -> str:
    ref = (case.get("call") or {}).get("ref", "")
    overall = "" if case.get("overall") is None else f"{case['overall']} of 100"
    return ", ".join(str(part) for part in (ref, case.get("verdict"), overall, case.get("detail")) if part)
