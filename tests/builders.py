"""What tests are made of: plain functions with defaults, so that a test names only what it is about."""

from __future__ import annotations

from qa_worker.application.ports import Grading, NamedRubric
from qa_worker.domain.call import Agent, Call, Expected
from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding
from qa_worker.domain.rubric import Criterion, JudgeKind, Rubric, Severity
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn

LEVELS = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "very good"}
STANDARD = ("intent_completion", "tool_usage", "compliance", "response_quality")


def a_turn(role: str, text: str, *calls: ToolCall) -> Turn:
    """One turn without times."""
    return Turn(Role(role), text, tool_calls=calls)


def a_transcript(*turns: tuple[str, str]) -> Transcript:
    """Turns as (role, text); a short polite call where none are given."""
    said = turns or (
        ("agent", "Hello, how can I help you today?"),
        ("caller", "I would like to move my appointment to Friday."),
        ("agent", "Your appointment is on Friday at ten now. Anything else?"),
        ("caller", "No, thank you, goodbye."),
        ("agent", "Goodbye."),
    )
    return Transcript(tuple(a_turn(role, text) for role, text in said))


def a_call(ref: str = "call-1", *, transcript: Transcript | None = None, expected: Expected | None = None) -> Call:
    """A finished call of the agent `booking`."""
    return Call(
        ref=ref,
        agent=Agent(id="booking", name="Booking", version="3", instructions="Be polite."),
        transcript=transcript or a_transcript(),
        expected=expected or Expected(),
    )


def a_rubric(*criteria: str, threshold: int = 70, minimum: int | None = None) -> Rubric:
    """Criteria of equal weight; `compliance` has hard failures."""
    return Rubric(
        name="test rubric",
        criteria=tuple(
            Criterion(
                id=name,
                title=name,
                question=f"How was {name}?",
                levels=LEVELS,
                critical_fails=name == "compliance",
                minimum=minimum,
            )
            for name in (criteria or STANDARD)
        ),
        pass_threshold=threshold,
    )


def a_finding(criterion: str = "compliance", severity: Severity = Severity.MAJOR, *, quote: str = "") -> Finding:
    """A finding of the model that quotes the short polite call."""
    return Finding(criterion, severity, "It was not good.", turn=2, quote=quote or "Your appointment is on Friday")


def an_assessment(*findings: Finding, level: int = 5, levels: dict[str, int | None] | None = None) -> Assessment:
    """All standard criteria at `level`, except those that `levels` names."""
    given = {**dict.fromkeys(STANDARD, level), **(levels or {})}
    return Assessment(tuple(CriterionLevel(name, value) for name, value in given.items()), findings, "A summary.")


def a_grading(*, judge: JudgeKind = JudgeKind.CLAUDE, max_attempts: int = 3) -> Grading:
    """How calls are graded in tests."""
    return Grading(
        rubric=NamedRubric(a_rubric()),
        judge=judge,
        model="claude-haiku-5-5",
        effort="low",
        max_tokens=3000,
        max_attempts=max_attempts,
    )
