from __future__ import annotations

from dataclasses import replace

from qa_worker.adapters.claude.request import DEFAULT_SPEC, body, cached_prefix, static_text
from qa_worker.application.judging import JudgeRequest
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.prompt import system_text, user_text
from qa_worker.domain.reading import answer_schema
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.domain.grading_samples import AGENT, CALL, RUBRIC

REQUEST = JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE), "workspace-1")


def test_the_body_is_all_that_a_batchs_item_needs() -> None:
    assert body(REQUEST) == {
        "model": DEFAULT_SPEC.model,
        "max_tokens": DEFAULT_SPEC.max_tokens,
        "system": [{"type": "text", "text": system_text(RUBRIC, AGENT), "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": user_text(CALL.transcript, expected=CALL.expected, evidence=Evidence(), started_at=None),
            }
        ],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": answer_schema(RUBRIC)}},
    }


def test_the_static_text_is_made_once_and_anew_for_what_changed_under_the_same_name() -> None:
    equal = replace(REQUEST, rubric=replace(RUBRIC), call=replace(CALL, agent=replace(AGENT)))
    other = replace(REQUEST, call=replace(CALL, agent=replace(AGENT, instructions="Never take bookings.")))
    assert static_text(equal) is static_text(REQUEST)
    assert "Never take bookings." in static_text(other)
    assert "Never take bookings." not in static_text(REQUEST)
    assert static_text(REQUEST) == system_text(RUBRIC, AGENT)


def test_a_prefix_belongs_to_model_effort_rubric_and_agent() -> None:
    same = replace(REQUEST, key="workspace-2", evidence=Evidence())
    others = [
        replace(REQUEST, spec=JudgeSpec(JudgeKind.CLAUDE, model="claude-sonnet-5-5")),
        replace(REQUEST, spec=JudgeSpec(JudgeKind.CLAUDE, effort="high")),
        replace(REQUEST, rubric=replace(RUBRIC, guidance="Callers are hungry.")),
        replace(REQUEST, call=replace(CALL, agent=replace(AGENT, name="Bob"))),
    ]
    prefixes = [cached_prefix(request) for request in (REQUEST, *others)]
    assert cached_prefix(same) == prefixes[0]
    assert len(set(prefixes)) == 5
