"""What the settings say about grading, in the words of the use cases."""

from __future__ import annotations

from qa_worker import rubrics
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.application.ports import Grading, NamedRubric
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind
from qa_worker.settings import Settings


def judge_kind(chosen: Settings) -> JudgeKind:
    """The judge that calls get where nobody chooses one."""
    if chosen.judge == "auto":
        return JudgeKind.RULES if chosen.anthropic_api_key is None else JudgeKind.CLAUDE
    return JudgeKind(chosen.judge)


def grading(chosen: Settings) -> Grading:
    """How calls are graded where nobody says otherwise."""
    return Grading(
        rubric=default_rubric(),
        judge=judge_kind(chosen),
        model=chosen.judge_model,
        effort=chosen.judge_effort,
        max_tokens=chosen.judge_max_tokens,
        max_attempts=chosen.max_attempts,
        votes=chosen.judge_votes,
        borderline=chosen.judge_borderline,
    )


def default_rubric() -> NamedRubric:
    """The rubric that every installation has."""
    return named_rubric(rubrics.default_rubric_text(), source="the default rubric")


def retry_policy(chosen: Settings) -> RetryPolicy:
    """When failed work is tried again."""
    return RetryPolicy(
        schedule_s=chosen.retry_schedule_s,
        max_attempts=chosen.max_attempts,
        unreadable_attempts=chosen.unreadable_attempts,
    )


def run_retry_policy(chosen: Settings) -> RetryPolicy:
    """When a run goes on whose agent or caller failed: soon, and not for long."""
    return RetryPolicy(
        schedule_s=chosen.run_retry_schedule_s,
        max_attempts=len(chosen.run_retry_schedule_s) + 1,
        unreadable_attempts=chosen.unreadable_attempts,
        parks_blocked=False,
    )


def named_rubric(text: str, *, source: str) -> NamedRubric:
    """A rubric from the text of a file. Raises InvalidInput."""
    rubric, overrides = parse_rubric(text, source=source)
    return NamedRubric(rubric, overrides)
