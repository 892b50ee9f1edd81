"""What makes a rubric version another one."""

from __future__ import annotations

from dataclasses import replace

from qa_worker.domain.rubric import Criterion, JudgeKind, JudgeSpec, Rubric, fingerprint

LEVELS = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "very good"}
RUBRIC = Rubric(
    "Bookings",
    (
        Criterion("tone", "Tone", "Was it kind?", LEVELS, 2.0),
        Criterion("rules", "Rules", "Were they kept?", LEVELS, critical_fails=True),
    ),
)
SPEC = JudgeSpec(JudgeKind.CLAUDE, model="claude-haiku-5-5", effort="low", max_tokens=3000)


def _print(rubric: Rubric = RUBRIC, spec: JudgeSpec = SPEC, prompt: str = "1") -> str:
    return fingerprint(rubric, spec, prompt_version=prompt)


def test_versions_from_before_there_were_votes_keep_their_fingerprint() -> None:
    """Computed by the code of then: another one would grade every call again under a version that says the same."""
    assert _print() == "05c0f23e1554cde0c1c0943fd80ee9fad0977a9794ee851d816026e06168df56"
    assert fingerprint(RUBRIC, JudgeSpec(JudgeKind.RULES)) == (
        "a40abb50305b5cf4bf3af65bdd8f049f4b2f476f25e8bcd0953b5306edcbb463"
    )


def test_everything_that_measures_is_in_the_fingerprint() -> None:
    prints = [
        _print(),
        _print(replace(RUBRIC, pass_threshold=71)),
        _print(prompt="2"),
        *(
            _print(spec=replace(SPEC, **change))
            for change in ({"model": "m"}, {"effort": "high"}, {"max_tokens": 2000}, {"votes": 3}, {"votes": 5})
        ),
        _print(spec=replace(SPEC, votes=3, borderline=5)),
    ]

    assert len(set(prints)) == len(prints)


def test_how_near_is_near_measures_nothing_where_one_answer_is_all() -> None:
    assert _print(spec=replace(SPEC, borderline=5)) == _print()
