"""Slack's incoming webhooks: an alert as readable blocks.

Limits of Block Kit (docs.slack.dev/reference/block-kit/blocks): 50 blocks a message, 150 characters in a header, 3000 in
a text, 10 fields of 2000 in a section.
"""

from __future__ import annotations

import json
from typing import Any

from qa_worker.application.channels import Answer, Parcel, Poster
from qa_worker.domain.alert import cut
from qa_worker.domain.alert_text import AlertText, alert_text

_BLOCKS, _HEADER, _TEXT, _FIELD, _FIELDS = 50, 150, 3000, 2000, 10
_MARKS = {"critical": ":red_circle:", "warning": ":large_orange_circle:", "info": ":large_blue_circle:"}


class SlackChannel:
    """Implements the port `Channel`."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    def check(self, target: str) -> str:
        """See the port."""
        return self._poster.check(target)

    def send(self, parcel: Parcel) -> Answer:
        """See the port."""
        message = json.dumps(message_of(parcel.body, parcel.message_id)).encode()
        return self._poster.post(parcel.target, message, {"content-type": "application/json"})


def message_of(body: bytes, message_id: str) -> dict[str, Any]:
    """What Slack is sent for an alert: blocks, and a line for notifications."""
    text = alert_text(body)
    blocks = [_header(text), *_fields(text), *_says(text), *_reasons(text), *_worst(text), *_links(text)]
    if len(blocks) >= _BLOCKS:
        blocks = blocks[: _BLOCKS - 1]
    # The id tells a reader, too, that an alert came twice.
    blocks.append({"type": "context", "elements": [_mrkdwn(f"{_plain(text.event)} · {text.at} · {message_id}")]})
    return {"text": cut(_plain(f"{text.severity}: {text.title}"), _TEXT), "blocks": blocks}


def _header(text: AlertText) -> dict[str, Any]:
    title = cut(f"{_MARKS.get(text.severity, '')} {text.title}".strip(), _HEADER)
    return {"type": "header", "text": {"type": "plain_text", "text": title, "emoji": True}}


def _fields(text: AlertText) -> list[dict[str, Any]]:
    fields = [_mrkdwn(f"*{label}*\n{_plain(value)}", _FIELD) for label, value in text.facts]
    return [{"type": "section", "fields": fields[:_FIELDS]}] if fields else []


def _says(text: AlertText) -> list[dict[str, Any]]:
    scores = ", ".join(f"{_plain(name)} *{_plain(score)}*" for name, score in text.scores)
    return [_section(part) for part in (_plain(text.detail), _plain(text.summary), scores) if part]


def _reasons(text: AlertText) -> list[dict[str, Any]]:
    sections = []
    for reason in text.reasons:
        quoted = "".join(f"\n> {line}" for line in _plain(reason.quote).splitlines())
        sections.append(_section(_plain(reason.text) + quoted))
    return sections


def _worst(text: AlertText) -> list[dict[str, Any]]:
    lines = [f"• {_plain(case)}" for case in text.worst]
    if text.left_out:
        lines.append(f"_{text.left_out} more not shown_")
    return [_section("\n".join(lines))] if lines else []


def _links(text: AlertText) -> list[dict[str, Any]]:
    links = " · ".join(f"<{_plain(url)}|{label}>" for label, url in text.links)
    return [_section(links)] if links else []


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str, at_most: int = _TEXT) -> dict[str, Any]:
    # `verbatim`: nothing that was said in a call becomes a link or calls a channel together.
    return {"type": "mrkdwn", "text": cut(text, at_most), "verbatim": True}


def _plain(text: str) -> str:
    """Slack's three special characters, escaped: what callers say is text, never markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
