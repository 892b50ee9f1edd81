"""Rubrics and their versions on real PostgreSQL."""

from __future__ import annotations

import hashlib

import pytest

from qa_worker.adapters.postgres.rubrics import rubric_from_json, rubric_to_json
from qa_worker.application.ports import Claimed, JudgeOverrides, NamedRubric, Wanted
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from qa_worker.domain.transcript import canonical
from tests.builders import a_call, a_grading, a_rubric
from tests.conftest import UnitsOfWork
from tests.domain.test_rubric import RUBRIC

pytestmark = pytest.mark.services

EFFORT, VOTES = JudgeOverrides(effort="high"), JudgeOverrides(votes=5, borderline=8)


def _claimed(uow: UnitsOfWork, rubric: NamedRubric) -> Claimed:
    (accepted,) = submit_calls(
        [a_call()],
        workspace_name="w",
        uow=uow,
        grading=a_grading(),
        in_flight_limit=9,
        wanted=Wanted(rubric=rubric, judge=JudgeKind.CLAUDE),
    )
    assert isinstance(accepted, Accepted)
    with uow() as work:
        (claimed,) = work.evaluations.claim([accepted.evaluation_id], lease_s=60)
        work.commit()
    assert isinstance(claimed, Claimed)
    return claimed


def test_a_worker_reads_the_judge_that_the_version_was_stored_with(uow: UnitsOfWork) -> None:
    # A rubric of its own: this process keeps the versions that it has read.
    rubric = a_rubric("round_trip")

    with_votes = _claimed(uow, NamedRubric(rubric, VOTES)).version
    without = _claimed(uow, NamedRubric(rubric, EFFORT)).version

    model = "claude-haiku-5-5"
    assert with_votes.judge == JudgeSpec(JudgeKind.CLAUDE, model, "low", 3000, votes=5, borderline=8)
    assert without.judge == JudgeSpec(JudgeKind.CLAUDE, model, "high", 3000)
    assert (with_votes.rubric, without.rubric) == (rubric, rubric)


def test_a_default_rubric_keeps_what_it_says_of_votes(uow: UnitsOfWork) -> None:
    key = _claimed(uow, NamedRubric(RUBRIC)).key
    with uow() as work:
        work.rubrics.set_default("w", NamedRubric(RUBRIC, VOTES), agent_ref=None)
        work.commit()

    with uow() as work:
        assert work.rubrics.default_for(key.workspace, key.agent_id) == NamedRubric(RUBRIC, VOTES)


@pytest.mark.parametrize(
    ("overrides", "print_"),
    [
        (JudgeOverrides(), "28f1633254978c15d5bbedaa897ceb2556d4bf35ffa7c16089f56c4015ce270c"),
        (EFFORT, "766ea521662f9b007896833c12de6462eb2d81ea30a7d73f13a58b386a6fdcae"),
    ],
)
def test_a_rubric_from_before_there_were_votes_keeps_its_row(overrides: JudgeOverrides, print_: str) -> None:
    """Computed by the code of then."""
    stored = rubric_to_json(NamedRubric(RUBRIC, overrides))

    assert hashlib.sha256(canonical(stored).encode()).hexdigest() == print_
    assert rubric_from_json(stored) == NamedRubric(RUBRIC, overrides)
