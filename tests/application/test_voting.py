"""Asking again where it is close: when, how often, and what it comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.ports import JudgeOverrides, NamedRubric
from qa_worker.application.voting import VotingJudge
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.evidence.facts import Check, Evidence, Fact
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.builders import a_call, a_grading, a_rubric, an_assessment
from tests.fakes import USAGE

SPEC = JudgeSpec(JudgeKind.CLAUDE, "claude-haiku-5-5", votes=3, borderline=5)
REQUEST = JudgeRequest(a_call(), a_rubric(), Evidence(), SPEC, "workspace")
# 75, next to the threshold of 70
CLOSE = an_assessment(level=4)
UNREADABLE = Failure(FailureKind.UNREADABLE, "max_tokens", "It was cut.", request_id="req_9")
DOWN = Failure(FailureKind.TRANSIENT, "timeout", "No answer.")


def _held(wait_s: float) -> Failure:
    return Failure(FailureKind.HELD, "limit_used_up", "No room.", retry_after_s=wait_s)


@dataclass
class Script:
    """Answers with the steps in turn; notes how many requests are under way at once, and every wait."""

    steps: Sequence[Assessment | Failure | Exception]
    asked: int = 0
    under_way: int = 0
    most_under_way: int = 0
    waits: list[float] = field(default_factory=list)

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        step = self.steps[self.asked]
        self.asked += 1
        request_id = f"req_{self.asked}"
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if isinstance(step, Exception):
            raise step
        # What was held back was not sent, and the service being down bills nothing.
        usage = Usage() if isinstance(step, Failure) and step is not UNREADABLE else USAGE
        model = "" if isinstance(step, Failure) else "claude-haiku-5-5-dated"
        return JudgeAnswer(step, usage, model, request_id, "cut" if step is UNREADABLE else "")

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def _grade(*steps: Assessment | Failure | Exception, request: JudgeRequest = REQUEST) -> tuple[JudgeAnswer, Script]:
    script = Script(steps)
    answer = asyncio.run(VotingJudge(script, patience_s=10, sleep=script.sleep).grade(request))
    return answer, script


def _times(count: int) -> Usage:
    return Usage(
        input_tokens=USAGE.input_tokens * count,
        cache_read_tokens=USAGE.cache_read_tokens * count,
        output_tokens=USAGE.output_tokens * count,
        thinking_tokens=USAGE.thinking_tokens * count,
    )


def _levels(answer: JudgeAnswer) -> set[int | None]:
    assert isinstance(answer.result, Assessment)
    return {level.level for level in answer.result.levels}


def test_a_close_score_is_asked_about_again_and_the_median_decides() -> None:
    answer, script = _grade(CLOSE, an_assessment(level=2), an_assessment(level=3))

    assert isinstance(answer.result, Assessment)
    assert (_levels(answer), answer.result.votes) == ({3}, 3)
    assert (script.asked, answer.usage, answer.usages) == (3, _times(3), (USAGE,) * 3)
    assert (answer.model, answer.request_id) == ("claude-haiku-5-5-dated", "req_1")


def test_the_further_answers_are_asked_for_at_the_same_time() -> None:
    _, script = _grade(*[CLOSE] * 5, request=replace(REQUEST, spec=replace(SPEC, votes=5)))

    assert (script.asked, script.most_under_way) == (5, 4)


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        (replace(SPEC, votes=1), CLOSE),
        (SPEC, an_assessment(level=5)),
        (SPEC, an_assessment(level=3)),
        (SPEC, UNREADABLE),
        (SPEC, _held(1)),
    ],
    ids=["votes off", "far above", "far below", "unreadable", "held"],
)
def test_one_answer_is_enough(spec: JudgeSpec, first: Assessment | Failure) -> None:
    answer, script = _grade(first, request=replace(REQUEST, spec=spec))

    assert (answer.result, script.asked) == (first, 1)


def test_the_score_counts_as_evidence_has_capped_it() -> None:
    """All 5 is far from the threshold; a required phrase that is missing brings compliance to 2, and the score to 81."""
    missing = Evidence(facts=(Fact(Check.MISSING_REQUIRED_PHRASE, "It was not said."),))
    spec = replace(SPEC, borderline=11)
    best = an_assessment(level=5)

    _, without = _grade(best, request=replace(REQUEST, spec=spec))
    _, script = _grade(best, best, best, request=replace(REQUEST, spec=spec, evidence=missing))

    assert (without.asked, script.asked) == (1, 3)


def test_no_vote_is_paid_for_where_a_proven_breach_has_decided() -> None:
    breach = Evidence(facts=(Fact(Check.FORBIDDEN_TOOL, "It was called."),))
    anything = replace(SPEC, borderline=100)

    _, script = _grade(CLOSE, request=replace(REQUEST, evidence=breach, spec=anything))

    assert script.asked == 1


def test_a_majority_of_the_answers_is_enough_and_all_are_billed() -> None:
    answer, script = _grade(CLOSE, UNREADABLE, an_assessment(level=3))

    assert isinstance(answer.result, Assessment)
    # of two in the middle the lower
    assert (_levels(answer), answer.result.votes) == ({3}, 2)
    assert (script.asked, answer.usage, answer.raw) == (3, _times(3), "")


def test_without_a_majority_the_failure_is_returned_with_the_whole_bill() -> None:
    answer, _ = _grade(CLOSE, UNREADABLE, DOWN)

    assert (answer.result, answer.request_id, answer.raw) == (UNREADABLE, "req_2", "cut")
    assert (answer.usage, answer.model) == (_times(2), "claude-haiku-5-5-dated")
    assert answer.usages == (USAGE, USAGE, Usage())


def test_a_failure_that_was_sent_comes_before_one_that_was_held_back() -> None:
    """It says more of what is wrong."""
    answer, _ = _grade(CLOSE, _held(60), DOWN)

    assert (answer.result, answer.usage) == (DOWN, _times(1))


def test_a_further_request_waits_for_room_in_the_slot() -> None:
    answer, script = _grade(CLOSE, _held(3), CLOSE, _held(4), CLOSE)

    assert isinstance(answer.result, Assessment)
    assert (answer.result.votes, sorted(script.waits)) == (3, [3, 4])


def test_what_is_held_back_for_longer_goes_to_the_row() -> None:
    answer, script = _grade(CLOSE, _held(6), _held(11), _held(5))

    assert isinstance(answer.result, Failure)
    assert answer.result.kind is FailureKind.HELD
    assert (script.waits, answer.usage) == ([6], _times(1))


def test_a_fault_of_ours_is_raised_when_all_have_ended() -> None:
    script = Script([CLOSE, ZeroDivisionError("x"), CLOSE])

    with pytest.raises(ZeroDivisionError):
        asyncio.run(VotingJudge(script).grade(REQUEST))

    assert (script.asked, script.under_way) == (3, 0)


def test_a_rubric_overrides_the_settings_of_votes() -> None:
    grading = replace(a_grading(), votes=3, borderline=5)

    def spec(overrides: JudgeOverrides, judge: JudgeKind | None = None) -> tuple[int, int]:
        made = grading.spec(NamedRubric(a_rubric(), overrides), judge)
        return made.votes, made.borderline

    assert spec(JudgeOverrides()) == (3, 5)
    assert spec(JudgeOverrides(votes=5, borderline=0)) == (5, 0)
    assert spec(JudgeOverrides(votes=1, borderline=9)) == (1, 0)
    assert spec(JudgeOverrides(), JudgeKind.RULES) == (1, 0)
