"""Many calls of one message: each claimed, graded and recorded on its own."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import delete, select, update

from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import attempts, calls, evaluations
from qa_worker.application._grading import Tools
from qa_worker.application.evaluate_call import evaluate_call
from qa_worker.application.evaluate_calls import SomeFailed, evaluate_calls
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.call import CallId
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, Skipped
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind
from tests.builders import a_call, a_grading, an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases, ScriptedJudge

pytestmark = pytest.mark.services


def _tools(uow: UnitsOfWork, judge: ScriptedJudge) -> Tools:
    return Tools(
        uow=uow,
        records=DirectRecords(uow),
        leases=NoLeases(),
        context=NoContext(),
        judges={JudgeKind.CLAUDE: judge},
        clock=FrozenClock(),
        jitter=FixedJitter(),
        policy=RetryPolicy(schedule_s=(10,), max_attempts=3),
        grading=a_grading(),
        lease_s=60,
    )


def _submit(uow: UnitsOfWork, count: int) -> list[Accepted]:
    made = [a_call(f"call-{number}") for number in range(count)]
    answers = submit_calls(made, workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=99)
    return [answer for answer in answers if isinstance(answer, Accepted)]


def _ids(accepted: list[Accepted]) -> list[uuid.UUID]:
    return [one.evaluation_id for one in accepted]


def test_each_call_of_a_message_has_its_own_outcome(uow: UnitsOfWork) -> None:
    accepted = _submit(uow, 3)
    limited = Failure(FailureKind.RATE_LIMITED, "http_429", "Too many.", retry_after_s=30)
    judge = ScriptedJudge([an_assessment(), limited, an_assessment(level=4)], engine=uow.engine)

    outcomes = evaluate_calls(evaluation_ids=_ids(accepted), tools=_tools(uow, judge))

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Done", "Done", "Parked"]
    states = [view.state.value for view in PostgresQueries(uow.engine).evaluations(_ids(accepted))]
    assert sorted(states) == ["done", "done", "pending"]


def test_a_message_that_comes_again_skips_what_is_done(uow: UnitsOfWork) -> None:
    accepted = _submit(uow, 3)
    judge = ScriptedJudge([an_assessment()])
    tools = _tools(uow, judge)
    evaluate_calls(evaluation_ids=_ids(accepted[:2]), tools=tools)

    outcomes = evaluate_calls(evaluation_ids=_ids(accepted), tools=tools)

    assert outcomes == (Done("pass"),)
    assert len(judge.requests) == 3


def test_calls_may_be_named_themselves_whether_anybody_has_asked_about_them_or_not(uow: UnitsOfWork) -> None:
    known, unasked = _submit(uow, 2)
    with uow.engine.begin() as connection:
        connection.execute(delete(evaluations).where(evaluations.c.call_id == unasked.call_id))

    named = [known.call_id, unasked.call_id, CallId(uuid.uuid4())]
    outcomes = evaluate_calls(call_ids=named, tools=_tools(uow, ScriptedJudge([an_assessment()])))

    assert outcomes == (Done("pass"), Done("pass"))
    assert len(PostgresQueries(uow.engine).evaluations(_ids([known, unasked]))) == 2


def test_a_fault_with_one_call_stands_in_its_row_and_the_others_go_on(uow: UnitsOfWork) -> None:
    accepted = _submit(uow, 3)
    judge = ScriptedJudge([an_assessment(), ZeroDivisionError("x"), an_assessment()])

    with pytest.raises(SomeFailed):
        evaluate_calls(evaluation_ids=_ids(accepted), tools=_tools(uow, judge))

    views = PostgresQueries(uow.engine).evaluations(_ids(accepted))
    assert sorted((view.state.value, view.error_code) for view in views) == [
        ("done", ""),
        ("done", ""),
        ("pending", "internal_error"),
    ]


def test_a_row_that_a_backend_wrote_wrongly_is_given_up_on_and_the_others_go_on(uow: UnitsOfWork) -> None:
    accepted = _submit(uow, 3)
    with uow.engine.begin() as connection:
        wrong = [{"role": "customer", "text": "Hello"}]
        connection.execute(update(calls).where(calls.c.id == accepted[0].call_id).values(transcript=wrong))

    outcomes = evaluate_calls(evaluation_ids=_ids(accepted), tools=_tools(uow, ScriptedJudge([an_assessment()])))

    assert sorted(map(str, outcomes)) == sorted(map(str, [Dead("malformed_row"), Done("pass"), Done("pass")]))
    (view,) = PostgresQueries(uow.engine).evaluations([accepted[0].evaluation_id])
    assert (view.verdict, view.error_code) == ("not_evaluated", "malformed_row")
    assert "docs/formats.md" in view.error_message
    with uow.engine.connect() as connection:
        assert len(connection.execute(select(attempts.c.id)).all()) == 3


def test_a_malformed_row_ends_the_same_way_alone(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, 1)
    with uow.engine.begin() as connection:
        connection.execute(update(calls).values(transcript=[{"text": "no role"}]))

    outcome = evaluate_call(call_id=accepted.call_id, tools=_tools(uow, ScriptedJudge([an_assessment()])))

    assert outcome == Dead("malformed_row")


def test_a_message_that_mixes_up_two_calls_grades_neither(uow: UnitsOfWork) -> None:
    ours, theirs = _submit(uow, 2)
    judge = ScriptedJudge([an_assessment()])

    outcome = evaluate_call(call_id=ours.call_id, evaluation_id=theirs.evaluation_id, tools=_tools(uow, judge))

    assert isinstance(outcome, Skipped)
    assert judge.requests == []


def test_calls_without_a_judge_wait_until_there_is_one(uow: UnitsOfWork) -> None:
    accepted = _submit(uow, 2)
    tools = _tools(uow, ScriptedJudge([an_assessment()]))
    tools.judges.clear()

    outcomes = evaluate_calls(evaluation_ids=_ids(accepted), tools=tools)

    assert [type(outcome) for outcome in outcomes] == [Parked, Parked]
