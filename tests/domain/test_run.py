from __future__ import annotations

from itertools import product

import pytest

from qa_worker.domain.evaluation import Verdict
from qa_worker.domain.run import (
    FINAL,
    MEASURED,
    NOT_GRADED,
    TRANSITIONS,
    Completion,
    Ended,
    IllegalTransition,
    RunState,
    move,
    settle,
)


def test_a_run_goes_through_running_and_never_leaves_a_final_state() -> None:
    assert move(RunState.PENDING, RunState.RUNNING) is RunState.RUNNING
    assert {after for before, after in TRANSITIONS if before is RunState.PENDING} == {
        RunState.RUNNING,
        RunState.CANCELLED,
    }
    assert {after for before, after in TRANSITIONS if before is RunState.RUNNING} == FINAL | {RunState.PENDING}
    assert not [pair for pair in TRANSITIONS if pair[0] in FINAL]


@pytest.mark.parametrize(("before", "after"), sorted(set(product(RunState, RunState)) - TRANSITIONS))
def test_any_other_move_is_refused_by_name(before: RunState, after: RunState) -> None:
    with pytest.raises(IllegalTransition, match=f"a run that is {before} can't become {after}"):
        move(before, after)


@pytest.mark.parametrize("completion", sorted(set(Completion) - NOT_GRADED))
def test_whatever_ended_the_conversation_it_is_graded(completion: Completion) -> None:
    assert settle(completion, verdict=Verdict.PASS) == Ended(RunState.PASSED, completion)
    assert settle(completion, verdict=Verdict.FAIL, message="2 findings").state is RunState.FAILED


@pytest.mark.parametrize("verdict", [None, Verdict.NEEDS_REVIEW, Verdict.NOT_EVALUATED])
def test_what_was_not_measured_is_an_error_that_says_so(verdict: Verdict | None) -> None:
    ended = settle(Completion.MAX_TURNS, verdict=verdict)

    assert ended.state is RunState.ERROR
    assert ended.state not in MEASURED
    assert ended.message


@pytest.mark.parametrize("verdict", [None, *Verdict])
def test_a_fault_of_the_caller_makes_the_run_invalid_whatever_the_verdict(verdict: Verdict | None) -> None:
    ended = settle(Completion.CALLER_HUNG_UP, verdict=verdict, faults=("looped (turn 7)", "left_brief (turn 9)"))

    assert ended == Ended(RunState.INVALID, Completion.CALLER_HUNG_UP, "looped (turn 7); left_brief (turn 9)")


def test_a_cancel_that_came_after_the_end_leaves_the_verdict() -> None:
    assert settle(Completion.GOAL_REACHED, verdict=Verdict.FAIL).state is RunState.FAILED


@pytest.mark.parametrize("verdict", [None, *Verdict])
def test_a_conversation_that_was_cut_short_is_cancelled_whatever_else_is_known(verdict: Verdict | None) -> None:
    ended = settle(Completion.CANCELLED, verdict=verdict, faults=("looped",))

    assert ended.state is RunState.CANCELLED


def test_a_conversation_that_could_not_be_held_is_an_error_with_its_message() -> None:
    assert settle(Completion.ERROR, message="the endpoint answers 500").message == "the endpoint answers 500"
    assert settle(Completion.ERROR, faults=("looped",)).state is RunState.ERROR
    assert settle(Completion.ERROR).message
