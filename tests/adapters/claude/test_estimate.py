from __future__ import annotations

from dataclasses import replace

import pytest

from qa_worker.adapters.claude.estimate import FIRST_OUTPUT_TOKENS, PastOutputs, need
from qa_worker.adapters.claude.request import CHARS_PER_TOKEN
from qa_worker.application.judging import JudgeRequest
from qa_worker.domain.call import Expected
from qa_worker.domain.evidence.facts import Check, Evidence, Fact
from qa_worker.domain.prompt import system_text, user_text
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn
from tests.domain.grading_samples import AGENT, CALL, RUBRIC, saying

MODEL = "claude-sonnet-5-5"
REQUEST = JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE, model=MODEL), "workspace-1")

TALK = saying(*["Could you read me the opening hours of Sunday, please?"] * 30)
TOOLS = Transcript(
    tuple(
        Turn(Role.AGENT, "Let me look.", 1.0, 2.0, (ToolCall("find", {"day": "Sunday", "at": n}, f"tc_{n}"),))
        for n in range(20)
    )
)
FACTS = Evidence(facts=tuple(Fact(Check.DEAD_AIR, "Nobody said anything for 6.0 s.", turn=n) for n in range(5)))


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, call=replace(CALL, transcript=TALK)),
        replace(REQUEST, call=replace(CALL, transcript=TOOLS)),
        replace(REQUEST, call=replace(CALL, transcript=TALK, expected=Expected(outcome="Told the hours. " * 20))),
        replace(REQUEST, call=replace(CALL, transcript=TALK), evidence=FACTS),
    ],
    ids=["talk", "tools", "expected", "facts"],
)
def test_the_input_is_estimated_from_the_characters_that_will_be_sent(request_: JudgeRequest) -> None:
    call = request_.call
    text = user_text(call.transcript, expected=call.expected, evidence=request_.evidence, started_at=None)
    estimate = need(request_, past_output=PastOutputs(), warm=True).input_tokens
    assert estimate == pytest.approx(len(text) / CHARS_PER_TOKEN, rel=0.15)


def test_the_static_part_counts_unless_it_is_read_from_the_cache() -> None:
    cold, warm = (need(REQUEST, past_output=PastOutputs(), warm=warm).input_tokens for warm in (False, True))
    assert cold - warm == pytest.approx(len(system_text(RUBRIC, AGENT)) / CHARS_PER_TOKEN, abs=1)


def test_the_output_is_estimated_by_what_the_model_wrote_before() -> None:
    past = PastOutputs()
    assert need(REQUEST, past_output=past).output_tokens == FIRST_OUTPUT_TOKENS
    for _ in range(200):
        past.note(MODEL, 400)
    assert need(REQUEST, past_output=past).output_tokens == pytest.approx(400, abs=20)
    assert past.expected("claude-haiku-5-5") == FIRST_OUTPUT_TOKENS


def test_a_mean_lies_between_what_was_seen() -> None:
    past = PastOutputs()
    for tokens in (300, 500) * 100:
        past.note(MODEL, tokens)
    assert past.expected(MODEL) == pytest.approx(400, abs=20)


def test_an_answer_without_output_tells_nothing() -> None:
    past = PastOutputs()
    past.note(MODEL, 0)
    assert past.expected(MODEL) == FIRST_OUTPUT_TOKENS


def test_no_more_output_is_expected_than_is_allowed() -> None:
    short = replace(REQUEST, spec=JudgeSpec(JudgeKind.CLAUDE, model=MODEL, max_tokens=200))
    assert need(short, past_output=PastOutputs()).output_tokens == 200
