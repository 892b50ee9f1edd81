"""How an agent is reached, as its file says it."""

from __future__ import annotations

from typing import Any

import pytest

from qa_worker.adapters.importers.agent_file import parse_agent, parse_agent_and_target
from qa_worker.application.playing import AgentKind, Target
from qa_worker.domain.errors import InvalidInput


def _target(text: str) -> Target | None:
    return parse_agent_and_target(f"id: booking\ntarget: {text}\n", source="a.yaml")[1]


@pytest.mark.parametrize(
    ("text", "kind", "settings"),
    [
        ("{kind: claude}", AgentKind.CLAUDE, {}),
        (
            "{kind: claude, model: claude-sonnet-5-5, effort: high}",
            AgentKind.CLAUDE,
            {"model": "claude-sonnet-5-5", "effort": "high"},
        ),
        (
            '{kind: http, url: "https://a.example/", headers: {authorization: "Bearer ${QA_AGENT_SECRET_A}"}}',
            AgentKind.HTTP,
            {"url": "https://a.example/", "headers": {"authorization": "Bearer ${QA_AGENT_SECRET_A}"}},
        ),
        (
            '{kind: openai, url: "https://a.example/v1", model: m, body: {max_tokens: null, seed: 1}}',
            AgentKind.OPENAI,
            {"url": "https://a.example/v1", "model": "m", "body": {"max_tokens": None, "seed": 1}},
        ),
        ('{kind: python, call: "my_agents:reply"}', AgentKind.PYTHON, {"call": "my_agents:reply"}),
    ],
)
def test_each_kind_has_its_settings(text: str, kind: AgentKind, settings: dict[str, Any]) -> None:
    assert _target(text) == Target(kind, settings)


def test_a_file_may_leave_it_open() -> None:
    agent, target = parse_agent_and_target("id: booking\n", source="a.yaml")

    assert target is None
    assert agent == parse_agent("id: booking\n", source="a.yaml")


def test_a_scripted_target_needs_a_script() -> None:
    script = "script: {conversations: []}\n"
    _, target = parse_agent_and_target(f"id: booking\ntarget: {{kind: scripted}}\n{script}", source="a.yaml")

    assert target == Target(AgentKind.SCRIPTED)
    with pytest.raises(InvalidInput, match="script: is missing, and the target is scripted"):
        _target("{kind: scripted}")


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("{kind: http}", "target", "has no url, which the kind http needs"),
        ('{kind: openai, url: "https://a.example/v1"}', "target", "has no model"),
        ("{kind: python}", "target", "has no call"),
        ('{kind: claude, url: "https://a.example/"}', "target.url", "means nothing to the kind claude"),
        ('{kind: http, url: "https://a.example/", model: m}', "target.model", "means nothing to the kind http"),
        ("{kind: claude, effort: huge}", "target.effort", "low, medium, high, xhigh or max"),
        ("{kind: carrier-pigeon}", "target.kind", "Write one of scripted, claude, http, openai, python"),
        ('{url: "https://a.example/"}', "target.kind", "Write one of"),
        ('{kind: http, url: "https://a.example/", headers: {a: 5}}', "target.headers.a", "text"),
        ('{kind: http, url: "ftp://a.example/"}', "target.url", "Write https://, a host and a path"),
        ("{kind: http, url: a.example}", "target.url", "Write https://, a host and a path"),
        ('{kind: http, url: "https://${QA_AGENT_SECRET_HOST}/"}', "target.url", "in headers only"),
        (
            '{kind: http, url: "https://a.example/", headers: {a: "${ANTHROPIC_API_KEY}"}}',
            "target.headers.a",
            "Let its name begin with QA_AGENT_SECRET_",
        ),
    ],
)
def test_a_target_that_cannot_be_used_is_refused_with_its_place(text: str, field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _target(text)

    assert refused.value.field == field
    assert words in str(refused.value)
    assert (refused.value.source, refused.value.line) == ("a.yaml", 2)
