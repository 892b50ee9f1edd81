"""Grading one call: the order of claim, judge and record, and what follows each failure. Real database, scripted judge."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application._admission import OVER_SHARE
from qa_worker.application._grading import LEASE_LOST, Tools
from qa_worker.application.evaluate_call import Nudge, claim_calls, evaluate_call
from qa_worker.application.judging import Judge, JudgeRequest
from qa_worker.application.ports import Added, NamedRubric, Room, Wanted
from qa_worker.application.queries import EvaluationView
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.call import Call, CallId, Expected
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Outcome, Parked, RetryAt, Skipped
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind, Severity
from qa_worker.domain.work import Lane, WorkState
from tests.builders import a_call, a_finding, a_grading, a_rubric, an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases, ScriptedJudge, Step

pytestmark = pytest.mark.services

POLICY = RetryPolicy(schedule_s=(10, 20), max_attempts=3, unreadable_attempts=2)
RATE_LIMITED = Failure(FailureKind.RATE_LIMITED, "http_429", "Too many requests.", retry_after_s=30, request_id="req_9")
OVERLOADED = Failure(FailureKind.OVERLOADED, "http_529", "Overloaded.", request_id="req_9")
TIMEOUT = Failure(FailureKind.TRANSIENT, "timeout", "No answer within the deadline.")
UNREADABLE = Failure(FailureKind.UNREADABLE, "not_json", "The answer was no JSON.")
REJECTED = Failure(FailureKind.REJECTED, "http_401", "The key is not valid.")


@dataclass
class Bench:
    """One submitted call, and the tools to grade it with."""

    uow: UnitsOfWork
    call: Call = field(default_factory=a_call)
    clock: FrozenClock = field(default_factory=FrozenClock)
    wanted: Wanted = field(default_factory=Wanted)
    grading_judge: JudgeKind = JudgeKind.CLAUDE

    def __post_init__(self) -> None:
        grading = a_grading(judge=self.grading_judge)
        (answer,) = submit_calls(
            [self.call], workspace_name="w", uow=self.uow, grading=grading, in_flight_limit=9, wanted=self.wanted
        )
        assert isinstance(answer, Accepted)
        self.accepted = answer

    def tools(self, judge: Judge) -> Tools:
        return Tools(
            uow=self.uow,
            records=DirectRecords(self.uow),
            leases=NoLeases(),
            context=NoContext(),
            judges={JudgeKind.CLAUDE: judge},
            clock=self.clock,
            jitter=FixedJitter(),
            policy=POLICY,
            grading=a_grading(judge=self.grading_judge),
            lease_s=60,
        )

    def run(self, *script: Step) -> Outcome:
        return self.run_with(ScriptedJudge(script, engine=self.uow.engine))

    def run_with(self, judge: Judge) -> Outcome:
        return evaluate_call(
            call_id=self.accepted.call_id, evaluation_id=self.accepted.evaluation_id, tools=self.tools(judge)
        )

    def make_due(self) -> None:
        """Time passes until the next attempt."""
        with self.uow.engine.begin() as connection:
            connection.execute(update(evaluations).values(not_before=func.now()))

    def stored(self, ref: str, *, workspace: str = "w") -> CallId:
        """A call that a backend has written, and nobody has asked about yet."""
        with self.uow() as work:
            (added,) = work.calls.add_all([a_call(ref)], workspace_name=workspace)
            work.commit()
        assert isinstance(added, Added)
        return added.key.id

    def views_of(self, call_id: CallId) -> Sequence[EvaluationView]:
        with self.uow.engine.connect() as connection:
            ids = connection.execute(select(evaluations.c.id).where(evaluations.c.call_id == call_id)).scalars().all()
        return PostgresQueries(self.uow.engine).evaluations(ids)

    def view(self) -> EvaluationView:
        (view,) = PostgresQueries(self.uow.engine).evaluations([self.accepted.evaluation_id])
        return view


@pytest.fixture
def bench(uow: UnitsOfWork) -> Bench:
    """A submitted call."""
    return Bench(uow)


def test_a_graded_call_is_stored_with_scores_findings_usage_and_cost(bench: Bench) -> None:
    finding = a_finding("tool_usage", Severity.MINOR)

    assert bench.run(an_assessment(finding)) == Done("pass")

    view = bench.view()
    assert (view.state, view.verdict, view.overall, view.is_current) == (WorkState.DONE, "pass", 100, True)
    assert [score.criterion for score in view.scores] == [c.id for c in a_rubric().criteria]
    assert [(f.criterion, f.turn, f.quote) for f in view.findings] == [("tool_usage", 2, finding.quote)]
    assert (view.usage.prompt_tokens, view.usage.output_tokens) == (1500, 200)
    # 1000 x 0.10 + 500 x 0.01 + 200 x 0.50 dollars per million tokens
    assert view.cost_micro_usd == 205
    assert [(a.result, a.model, a.request_id) for a in view.attempts] == [("done", "claude-haiku-5-5", "req_1")]


def test_a_duplicate_message_is_skipped(bench: Bench) -> None:
    judge = ScriptedJudge([an_assessment()])
    assert bench.run_with(judge) == Done("pass")

    assert bench.run_with(judge) == Skipped("already evaluated")
    assert len(judge.requests) == 1


def test_a_message_without_an_evaluation_grades_under_the_rubric_that_holds(bench: Bench) -> None:
    judge = ScriptedJudge([an_assessment()])

    assert evaluate_call(call_id=bench.accepted.call_id, tools=bench.tools(judge)) == Done("pass")
    assert bench.view().verdict == "pass"


def test_a_call_that_nobody_stored_is_skipped(bench: Bench) -> None:
    judge = ScriptedJudge([an_assessment()])

    outcome = evaluate_call(call_id=CallId(uuid.uuid4()), tools=bench.tools(judge))

    assert outcome == Skipped("no such call")


def test_a_call_that_nobody_has_sent_waits_for_its_turn_where_its_workspace_has_its_share(bench: Bench) -> None:
    """A flood of messages is put aside as it is read: no row counts it before, and another's call may stand behind it."""
    unasked = bench.stored("unasked")
    tools = replace(bench.tools(ScriptedJudge([an_assessment()])), share=1)

    assert evaluate_call(call_id=unasked, tools=tools) == Skipped(OVER_SHARE)

    (waiting,) = bench.views_of(unasked)
    assert (waiting.state, waiting.attempt) == (WorkState.PENDING, 0)
    with bench.uow() as work:
        due = work.evaluations.due(Room(live=9, backlog=0), batch=9)
        work.commit()
    assert [ref.evaluation_id for ref in due] == [waiting.id], "the dispatcher sends it"
    assert evaluate_call(call_id=unasked, evaluation_id=waiting.id, tools=tools) == Done("pass")


def test_a_pending_call_that_is_nudged_waits_for_its_turn_too(bench: Bench) -> None:
    unasked = bench.stored("unasked")
    tools = replace(bench.tools(ScriptedJudge([an_assessment()])), share=1)
    evaluate_call(call_id=unasked, tools=tools)
    (waiting,) = bench.views_of(unasked)

    assert evaluate_call(call_id=unasked, tools=tools) == Skipped(OVER_SHARE)
    assert evaluate_call(call_id=unasked, evaluation_id=waiting.id, tools=tools) == Skipped(OVER_SHARE)


def test_what_was_sent_is_graded_however_much_its_workspace_has_under_way(bench: Bench) -> None:
    tools = replace(bench.tools(ScriptedJudge([an_assessment()])), share=0)

    assert evaluate_call(call_id=bench.accepted.call_id, tools=tools) == Done("pass")


def test_neither_anothers_calls_nor_a_backlog_of_ones_own_keep_a_call_from_being_graded(bench: Bench) -> None:
    other = bench.stored("other", workspace="another")
    with bench.uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(lane=Lane.BACKLOG.value))
    own = bench.stored("own")
    tools = replace(bench.tools(ScriptedJudge([an_assessment()])), share=1)

    assert evaluate_call(call_id=other, tools=tools) == Done("pass")
    assert evaluate_call(call_id=own, tools=tools) == Done("pass")


def test_no_evaluation_of_another_call_is_graded(bench: Bench) -> None:
    other = bench.stored("other")
    tools = bench.tools(ScriptedJudge([an_assessment()]))

    outcome = evaluate_call(call_id=other, evaluation_id=bench.accepted.evaluation_id, tools=tools)

    assert outcome == Skipped("no such evaluation")
    assert list(bench.views_of(other)) == []


def test_evaluate_call_rate_limit_retry(bench: Bench) -> None:
    """A 429 parks the call for as long as the provider says, uses up no attempt, and the call is graded after it."""
    for _ in range(POLICY.max_attempts + 2):
        outcome = bench.run(RATE_LIMITED)
        # retry-after, plus a fifth of the schedule's first wait
        assert outcome == Parked(bench.clock.now() + timedelta(seconds=30 + 2), "http_429")
        view = bench.view()
        assert (view.state, view.attempt, view.wait_reason) == (WorkState.PENDING, 0, "http_429")
        assert bench.run(an_assessment()) == Skipped("waiting for its next attempt")
        bench.make_due()

    assert bench.run(an_assessment()) == Done("pass")
    assert [attempt.result for attempt in bench.view().attempts] == ["parked"] * 5 + ["done"]


def test_evaluate_call_timeout(bench: Bench) -> None:
    """A judge that doesn't answer in time is tried again by schedule, and then given up visibly, never passed."""
    now = bench.clock.now()
    assert bench.run(TIMEOUT) == RetryAt(now + timedelta(seconds=10), "timeout")
    bench.make_due()
    assert bench.run(TIMEOUT) == RetryAt(now + timedelta(seconds=20), "timeout")
    bench.make_due()
    assert bench.run(TIMEOUT) == Dead("timeout")

    view = bench.view()
    assert (view.state, view.verdict, view.overall) == (WorkState.DEAD, "not_evaluated", None)
    assert (view.error_kind, view.error_code) == ("transient", "timeout")
    assert view.error_message == "No answer within the deadline."
    assert [(a.attempt, a.result) for a in view.attempts] == [(1, "retry"), (2, "retry"), (3, "dead")]


def test_an_overloaded_service_is_tried_again(bench: Bench) -> None:
    bench.run(OVERLOADED)
    bench.make_due()

    assert bench.run(an_assessment()) == Done("pass")
    view = bench.view()
    assert [(a.error_code, a.request_id) for a in view.attempts] == [("http_529", "req_9"), ("", "req_1")]
    assert view.error_kind is None


def test_failed_attempts_cost_what_they_cost(bench: Bench) -> None:
    bench.run(OVERLOADED)
    bench.make_due()
    bench.run(an_assessment())

    view = bench.view()
    assert view.usage.output_tokens == 400
    assert view.cost_micro_usd == 410


def test_what_can_not_succeed_is_not_tried_again(bench: Bench) -> None:
    assert bench.run(REJECTED) == Dead("http_401")
    assert bench.run(an_assessment()) == Skipped("given up on before")
    assert bench.view().verdict == "not_evaluated"


def test_an_answer_that_nobody_can_read_needs_review_and_is_kept(bench: Bench) -> None:
    assert isinstance(bench.run(UNREADABLE), RetryAt)
    bench.make_due()

    assert bench.run(UNREADABLE) == Done("needs_review")

    view = bench.view()
    assert (view.verdict, view.overall, view.reasons) == ("needs_review", None, ("unreadable:not_json",))
    assert [attempt.raw for attempt in view.attempts] == ["what the model wrote"] * 2
    assert view.error_code == "not_json"


def test_a_call_whose_answers_could_not_be_read_can_be_asked_for_again_and_begins_anew(uow: UnitsOfWork) -> None:
    """With what was proven of it, which is measured again."""
    bench = Bench(uow, call=replace(a_call(), expected=Expected(required_tools=("never_called",))))
    bench.run(UNREADABLE)
    bench.make_due()
    assert bench.run(UNREADABLE) == Done("needs_review")
    assert bench.view().findings

    assert _revive(bench) == 1

    view = bench.view()
    assert (view.state, view.verdict, view.reasons, view.is_current) == (WorkState.PENDING, None, (), False)
    assert (view.scores, view.findings, len(view.attempts)) == ((), (), 2)
    assert isinstance(bench.run(UNREADABLE), RetryAt), "what nobody could read before doesn't count any more"
    bench.make_due()
    assert bench.run(an_assessment()) == Done("fail")
    view = bench.view()
    assert (view.verdict, view.is_current, len(view.findings), len(view.attempts)) == ("fail", True, 1, 4)


def test_a_verdict_that_was_measured_is_not_asked_for_again(bench: Bench) -> None:
    bench.run(replace(an_assessment(), levels=()))
    assert bench.view().verdict == "needs_review"

    assert _revive(bench) == 0


def test_only_what_was_given_up_on_begins_anew_where_no_call_is_named(bench: Bench) -> None:
    bench.run(UNREADABLE)
    bench.make_due()
    assert bench.run(UNREADABLE) == Done("needs_review")

    with bench.uow() as work:
        assert list(work.evaluations.revive([])) == []


def _revive(bench: Bench) -> int:
    with bench.uow() as work:
        revived = work.evaluations.revive([bench.accepted.call_id])
        work.commit()
    return len(revived)


def test_a_worker_without_the_judge_says_what_to_do_and_grades_by_nothing_else(uow: UnitsOfWork) -> None:
    bench = Bench(uow)
    tools = replace(bench.tools(ScriptedJudge([an_assessment()])), judges={})

    outcome = evaluate_call(call_id=bench.accepted.call_id, tools=tools)

    assert isinstance(outcome, Parked)
    view = bench.view()
    assert (view.state, view.attempt, view.error_kind) == (WorkState.PENDING, 0, "blocked")
    assert "ANTHROPIC_API_KEY" in view.error_message


def test_a_zombies_late_result_is_dropped(bench: Bench) -> None:
    """While one worker waits for its judge, its lease runs out, another grades the call; the first records nothing."""

    def overtaken(_request: JudgeRequest) -> None:
        with bench.uow.engine.begin() as connection:
            connection.execute(update(evaluations).values(lease_until=func.now() - timedelta(seconds=1)))
        with bench.uow() as work:
            work.evaluations.free_expired(limit=10)
            work.commit()
        assert bench.run(an_assessment(level=4)) == Done("pass")

    zombie = ScriptedJudge([an_assessment(level=1)], on_call=overtaken)

    assert bench.run_with(zombie) == Skipped(LEASE_LOST)
    view = bench.view()
    assert view.overall == 75
    assert [(a.attempt, a.result) for a in view.attempts] == [(1, "abandoned"), (2, "done")]


def test_a_fault_of_our_own_is_raised_and_stands_in_the_row(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        bench.run(ZeroDivisionError("secret text"))

    view = bench.view()
    assert (view.state, view.error_code, view.attempt) == (WorkState.PENDING, "internal_error", 1)
    assert "ZeroDivisionError" in view.error_message
    assert "secret" not in view.error_message


def test_a_breach_of_what_was_expected_fails_the_call_whatever_the_model_says(uow: UnitsOfWork) -> None:
    forbidden = Expected(forbidden_phrases=("friday at ten",))
    bench = Bench(uow, call=a_call(expected=forbidden))

    assert bench.run(an_assessment()) == Done("fail")
    view = bench.view()
    assert view.reasons == ("critical:compliance",)
    assert [(f.check, f.source) for f in view.findings] == [("forbidden_phrase", "evidence")]


def test_the_judge_gets_the_settings_of_its_rubric_version(uow: UnitsOfWork) -> None:
    bench = Bench(uow, wanted=Wanted(rubric=NamedRubric(a_rubric("compliance"))))
    judge = ScriptedJudge([an_assessment()])

    bench.run_with(judge)

    (request,) = judge.requests
    assert [criterion.id for criterion in request.rubric.criteria] == ["compliance"]
    assert (request.spec.model, request.spec.effort) == ("claude-haiku-5-5", "low")


def test_messages_that_come_together_are_claimed_together_each_evaluation_once(uow: UnitsOfWork) -> None:
    first, second = Bench(uow, a_call("first")), Bench(uow, a_call("second"))
    tools = first.tools(ScriptedJudge([an_assessment()]))
    named = Nudge(first.accepted.call_id, first.accepted.evaluation_id)
    unnamed = Nudge(second.accepted.call_id)
    unknown = Nudge(CallId(uuid.uuid4()))

    claimed = claim_calls([named, unknown, unnamed, named], tools=tools)

    assert [one if isinstance(one, Skipped) else one.lease.work_id for one in claimed] == [
        first.accepted.evaluation_id,
        Skipped("no such call"),
        second.accepted.evaluation_id,
        Skipped("being evaluated by another worker"),
    ]
    assert claim_calls([unnamed], tools=tools) == [Skipped("being evaluated by another worker")]


def test_a_call_is_graded_by_what_another_thread_claimed_for_it(uow: UnitsOfWork) -> None:
    bench = Bench(uow)
    judge = ScriptedJudge([an_assessment()])
    tools = bench.tools(judge)
    (claimed,) = claim_calls([Nudge(bench.accepted.call_id)], tools=tools)

    outcome = evaluate_call(call_id=bench.accepted.call_id, tools=tools, claim=lambda _: claimed)

    assert outcome == Done("pass")


def test_of_a_flood_that_comes_together_only_the_workspaces_share_begins(uow: UnitsOfWork) -> None:
    bench = Bench(uow, a_call("flood-0"))
    tools = replace(bench.tools(ScriptedJudge([an_assessment()])), share=2)
    grading = a_grading()
    flood = submit_calls(
        [a_call(f"flood-{number}") for number in range(1, 5)],
        workspace_name="w",
        uow=uow,
        grading=grading,
        in_flight_limit=0,
    )
    (other,) = submit_calls([a_call("other")], workspace_name="o", uow=uow, grading=grading, in_flight_limit=0)
    nudges = [Nudge(one.call_id) for one in (*flood, other) if isinstance(one, Accepted)]

    claimed = claim_calls(nudges, tools=tools)

    # One of the workspace was queued before: there is room for one more of it.
    assert [isinstance(one, Skipped) for one in claimed] == [False, True, True, True, False]
    assert claimed[1] == Skipped(OVER_SHARE)
