"""What an attempt is written down to have cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from qa_worker.application._grading import attempt_record
from qa_worker.application.judging import JudgeAnswer
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from tests.builders import an_assessment

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ONE = Usage(input_tokens=40_000, output_tokens=1_000)
THREE = Usage(input_tokens=120_000, output_tokens=3_000)
ANSWER = JudgeAnswer(an_assessment(), ONE, "claude-haiku-5-5", "req", "")


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (ANSWER, 4_500),
        # three prompts under the band's end are no prompt over it
        (replace(ANSWER, usage=THREE, usages=(ONE,) * 3), 13_500),
        (replace(ANSWER, usage=ONE, usages=(ONE, Usage(), Usage())), 4_500),
        (replace(ANSWER, usage=THREE, usages=(THREE,)), 67_500),
        (replace(ANSWER, batch=True), 2_250),
        (replace(ANSWER, model="unknown"), None),
        (replace(ANSWER, usage=Usage(), model="unknown"), 0),
        (replace(ANSWER, usage=Usage(), model=""), 0),
    ],
    ids=["one", "votes", "votes held back", "a long prompt", "batch", "no price", "nothing used", "nothing asked"],
)
def test_each_request_is_priced_by_its_own_prompt(answer: JudgeAnswer, cost: int | None) -> None:
    held = Failure(FailureKind.HELD, "limit_used_up", "No room.")

    assert attempt_record("done", answer, NOW).cost_micro_usd == cost
    assert attempt_record("retry", replace(answer, result=held), NOW).cost_micro_usd == cost
