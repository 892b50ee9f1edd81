"""Playing one run: turn by turn in rows, graded, settled. Real database, players from lists of lines."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, func, select, update

from qa_worker.adapters.agents.model import ModelAgent
from qa_worker.adapters.postgres.budget import PostgresBudget
from qa_worker.adapters.postgres.tables import daily_spending, run_turns, runs
from qa_worker.application.conversing import ChatAnswer, ChatRequest, Turned
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.playing import AgentKind, AgentPlayer, AgentReply, CallerReply, PlayContext
from qa_worker.application.purse import Left
from qa_worker.application.run_scenario import LEASE_LOST
from qa_worker.application.run_suite import cancel_run, cancel_suite, dispatch_runs, rescue_runs
from qa_worker.domain.chat import Said
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt, Skipped
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Limits, Play, Told
from qa_worker.domain.transcript import ToolCall, Turn
from tests.builders import an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import ScriptedJudge
from tests.letters import letters
from tests.running import LINES, MINE, TOLD, FakePlayers, Stage, a_scenario, an_agent, politely, says

pytestmark = pytest.mark.services

BUSY = Failure(FailureKind.RATE_LIMITED, "http_429", "The provider's limit.", retry_after_s=7.0)
BROKEN = Failure(FailureKind.TRANSIENT, "http_500", "The provider broke.")
REFUSED = Failure(FailureKind.REJECTED, "http_400", "The agent's endpoint refuses the request.")


class Killed(BaseException):
    """The end of a process."""


@pytest.fixture
def stage(uow: UnitsOfWork) -> Stage:
    return Stage(uow)


def one_run(stage: Stage, *lines: str, **how: object) -> uuid.UUID:
    limits, play = how.pop("limits", None), how.pop("play", Play.SCRIPT)
    expected = how.pop("expected", TOLD)
    assert limits is None or isinstance(limits, Limits)
    assert isinstance(play, Play)
    assert isinstance(expected, ExpectedOutcome)
    kind = how.pop("kind", AgentKind.SCRIPTED)
    assert isinstance(kind, AgentKind)
    assert not how
    scenario = replace(a_scenario("plain", *lines, limits=limits, play=play), expected=expected)
    (row,) = stage.runs(stage.start(scenario, kind=kind))
    run_id: uuid.UUID = row.id
    return run_id


def test_a_run_is_played_to_the_end_of_its_script_graded_and_settled(stage: Stage) -> None:
    run_id = one_run(stage)

    stage.judged_by(ScriptedJudge([an_assessment()]))
    assert stage.play(run_id) == Done("passed")

    row = stage.run(run_id)
    assert (row.state, row.outcome, row.completion, row.turn_count) == ("done", "passed", "script_ended", 7)
    assert stage.indexes(run_id) == list(range(7))
    assert stage.turns(run_id)[0] == "agent: Booking line, hello."
    assert [told for _, told in stage.players.asked] == list(LINES)
    assert (row.input_tokens, row.cost_micro_usd) == (30, 9)
    assert row.clock_s == pytest.approx(max(turn.turn.end_s or 0 for turn in stage.queries.turns(run_id)))
    (evaluation,) = stage.evaluations()
    assert (evaluation.lane, evaluation.state, evaluation.verdict) == ("run", "done", "pass")
    assert evaluation.id == row.evaluation_id


def test_what_the_players_cost_is_in_the_books_of_the_day(stage: Stage, uow: UnitsOfWork) -> None:
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([an_assessment()]))
    stage.play(run_id)

    budget = PostgresBudget(uow.engine, overall=None, each_workspace=None, now=lambda: datetime.now(UTC))
    (every, _) = budget.spending()

    (evaluation,) = stage.evaluations()
    assert stage.run(run_id).cost_micro_usd == 9
    assert every.spent == 9 + evaluation.cost_micro_usd


def test_a_run_that_waits_for_the_budget_is_due_when_the_cap_is_raised(stage: Stage, uow: UnitsOfWork) -> None:
    spent = Failure(FailureKind.HELD, "budget_spent", "The budget is spent.", retry_after_s=300.0)
    playing, grading = one_run(stage), one_run(stage)
    stage.players.answer = lambda *_: spent
    assert isinstance(stage.play(playing), Parked)
    stage.players.answer = politely
    stage.judged_by(ScriptedJudge([spent, an_assessment()]))
    assert isinstance(stage.play(grading), Parked)
    budget = PostgresBudget(uow.engine, overall=1, each_workspace=None, now=lambda: datetime.now(UTC))

    budget.set_cap("another", 10**6)
    assert dispatch_runs(tools=stage.tools.suites, left=Left) == 0
    budget.set_cap("default", 10**6)

    assert dispatch_runs(tools=stage.tools.suites, left=Left) == 2
    assert [stage.play(playing), stage.play(grading)] == [Done("passed")] * 2


def test_a_run_that_waits_for_a_spent_budget_is_not_sent_again_before_something_is_left(stage: Stage) -> None:
    spent = Failure(FailureKind.HELD, "budget_spent", "The budget is spent.", retry_after_s=15.0)
    waiting, other = (row.id for row in stage.runs(stage.start(a_scenario("plain"), repeats=2)))
    stage.judged_by(ScriptedJudge([an_assessment()]))
    stage.players.answer = lambda *_: spent
    assert isinstance(stage.play(waiting), Parked)
    stage.make_due()
    stage.players.answer = politely

    # Its suite has room for it, and one that ends sends the next: but not this one.
    stage.play(other)
    assert dispatch_runs(tools=stage.tools.suites, left=lambda: Left(each=0)) == 0
    assert stage.run(waiting).state == "pending"

    assert dispatch_runs(tools=stage.tools.suites, left=lambda: Left(each=1)) == 1
    assert stage.play(waiting) == Done("passed")


def test_a_turn_that_is_written_again_because_it_was_cut_is_paid_for_once(stage: Stage, uow: UnitsOfWork) -> None:
    run_id = one_run(stage, "Tell me.", "[interrupts after 3 words] Stop, please.")
    stage.play(run_id)

    with uow.engine.connect() as connection:
        of_turns = connection.execute(select(func.sum(run_turns.c.cost_micro_usd))).scalar_one()
        (evaluation,) = stage.evaluations()
        spent = connection.execute(select(func.sum(daily_spending.c.micro_usd))).scalar_one()
    assert stage.queries.turns(run_id)[2].unheard
    assert of_turns == 6
    assert spent == of_turns + evaluation.cost_micro_usd


def test_what_a_reply_has_cost_that_failed_is_in_the_books_too(uow: UnitsOfWork) -> None:
    billed = replace(BROKEN, usage=Usage(input_tokens=100, output_tokens=5), cost_micro_usd=40)
    failures = iter([billed, billed])

    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        failed = next(failures, None) if len(history) > 2 else None
        return failed or politely(context, history, told)

    stage = Stage(uow, FakePlayers(answer))
    run_id = one_run(stage)
    for _ in range(2):
        assert isinstance(stage.play(run_id), RetryAt)
        stage.make_due()
    assert isinstance(stage.play(run_id), Done)

    row = stage.run(run_id)
    assert (row.cost_micro_usd, row.input_tokens) == (3 * 3 + 2 * 40, 3 * 10 + 2 * 100)
    budget = PostgresBudget(uow.engine, overall=None, each_workspace=None, now=lambda: datetime.now(UTC))
    assert budget.spending()[0].spent == row.cost_micro_usd
    result = stage.queries.result(row.suite_run_id)
    assert result is not None
    assert result.runs[0].cost_micro_usd == row.cost_micro_usd


def test_an_expectation_that_is_not_met_fails_the_run_whatever_the_judge_says(stage: Stage) -> None:
    run_id = one_run(stage, expected=ExpectedOutcome(told=(Told("the reference", ("HT-9999",)),)))
    stage.judged_by(ScriptedJudge([an_assessment()]))

    assert stage.play(run_id) == Done("failed")
    result = stage.queries.result(stage.run(run_id).suite_run_id)
    assert result is not None
    assert [finding.check for finding in result.runs[0].findings] == ["fact_not_told"]


def test_a_second_message_changes_nothing(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.play(run_id)

    assert stage.play(run_id) == Skipped("already over")
    assert stage.play(uuid.uuid4()) == Skipped("no such run")
    assert len(stage.players.asked) == len(LINES)


def test_silence_is_time_on_the_clock_and_the_agent_is_told_of_it(stage: Stage) -> None:
    run_id = one_run(stage, "Hello. [silence - 15 seconds] Are you there?", "Bye. [hangs up]")
    stage.play(run_id)

    told = [text for _, text in stage.players.asked]
    assert told == ["Hello.", "[the caller was silent for 15 seconds] Are you there?"]
    turns = stage.queries.turns(run_id)
    first_answer, after_silence = turns[2].turn, turns[3].turn
    assert first_answer.end_s is not None
    assert after_silence.start_s == pytest.approx(first_answer.end_s + 15)
    assert stage.slept == []
    assert stage.run(run_id).completion == "caller_hung_up"


def test_a_short_silence_is_told_and_waited_for_towards_a_live_agent(stage: Stage) -> None:
    run_id = one_run(stage, "Yes. [silence - 2 seconds]", "No [silence - 1 seconds] bye.", kind=AgentKind.HTTP)
    stage.play(run_id)

    assert sum(stage.slept) == 3.0
    assert [text for _, text in stage.players.asked] == [
        "Yes. [the caller was silent for 2 seconds]",
        "No [the caller was silent for 1 seconds] bye.",
    ]


def test_towards_a_live_agent_silence_is_real_and_capped(stage: Stage) -> None:
    run_id = one_run(stage, "Hello.", "[silence - 45 seconds] Still there?", kind=AgentKind.HTTP)
    stage.play(run_id)

    assert sum(stage.slept) == 30.0
    assert max(stage.slept) <= 1.0
    assert "[the caller was silent for 30 seconds] Still there?" in [text for _, text in stage.players.asked]


def test_what_the_caller_cut_off_is_kept_apart_and_never_heard(uow: UnitsOfWork) -> None:
    def answer(_context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        return says("One two three four five six seven eight." if not history[1:] else f"Yes, {told}")

    stage = Stage(uow, FakePlayers(answer))
    run_id = one_run(stage, "Tell me.", "[interrupts after 3 words] Stop, please.")
    stage.play(run_id)

    cut_turn = stage.queries.turns(run_id)[2]
    assert cut_turn.turn.text == "One two three [cut off by the caller]"
    assert cut_turn.unheard == "four five six seven eight."
    last_history = stage.players.heard[-1]
    assert last_history[-1].text == "One two three [cut off by the caller]"
    assert all("four" not in turn.text for turn in last_history)
    assert stage.queries.turns(run_id)[3].turn.start_s < cut_turn.turn.end_s  # type: ignore[operator]  # both are timed


def test_the_turn_cap_ends_the_run_and_what_happened_is_graded(stage: Stage) -> None:
    run_id = one_run(stage, limits=Limits(max_turns=2))
    stage.judged_by(ScriptedJudge([an_assessment()]))

    assert stage.play(run_id) == Done("passed")
    assert stage.run(run_id).completion == "max_turns"
    assert len(stage.players.asked) == 2


def test_the_longest_conversation_ends_with_timeout(stage: Stage) -> None:
    run_id = one_run(stage, "Hello.", "[silence - 300 seconds] Hm.", "More.", limits=Limits(call_s=200))
    stage.play(run_id)

    assert stage.run(run_id).completion == "timeout"
    assert len(stage.players.asked) == 1


def test_the_deadline_of_the_run_counts_real_time_at_work(uow: UnitsOfWork) -> None:
    stage = Stage(uow)

    def slowly(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        stage.clock.advance(60)
        return politely(context, history, told)

    stage.players.answer = slowly
    run_id = one_run(stage, limits=Limits(run_s=100))
    stage.play(run_id)

    row = stage.run(run_id)
    assert (row.completion, row.played_s) == ("timeout", pytest.approx(120))
    assert len(stage.players.asked) == 2


def test_a_line_that_was_never_put_to_the_agent_is_no_fault_of_its(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    judge = ScriptedJudge([an_assessment()])
    stage.judged_by(judge)
    lines = ("Hello.", "[silence - 300 seconds] Can you tell me the opening hours, please?")
    run_id = one_run(stage, *lines, limits=Limits(call_s=200))

    assert stage.play(run_id) == Done("passed")
    assert stage.run(run_id).completion == "timeout"
    (asked,) = judge.requests
    assert [fact.check.value for fact in asked.evidence.facts] == []
    assert "limit of time" in asked.evidence.notes[0]


def test_a_silence_in_answer_to_the_last_line_is_the_agents(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: AgentReply((), 0.5)))
    run_id = one_run(stage, "Can you tell me the opening hours, please?", limits=Limits(max_turns=1))
    stage.play(run_id)

    result = stage.queries.result(stage.run(run_id).suite_run_id)
    assert result is not None
    assert "unanswered_caller" in [finding.check for finding in result.runs[0].findings]


def test_an_agent_that_hangs_up_ends_the_run(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: says("No. Goodbye, at ten.", ends=True)))
    run_id = one_run(stage)
    stage.play(run_id)

    assert stage.run(run_id).completion == "agent_ended"
    assert len(stage.players.asked) == 1


def test_a_free_caller_ends_when_the_goal_is_reached(uow: UnitsOfWork) -> None:
    def lines(_context: PlayContext, _history: Sequence[Turn], number: int) -> CallerReply:
        return CallerReply(f"My wish number {number}.")

    stage = Stage(uow, FakePlayers(politely, lines))
    scenario = replace(a_scenario(play=Play.FREE), ends=Ends(said=("at ten",)), expected=TOLD)
    (row,) = stage.runs(stage.start(scenario))
    stage.play(row.id)

    assert stage.run(row.id).completion == "goal_reached"


# -- taken up again


def test_a_killed_workers_run_goes_on_at_the_turn_where_it_stood(uow: UnitsOfWork) -> None:
    class Killed(BaseException):
        pass

    def dies(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        if told == LINES[1]:
            raise Killed
        return politely(context, history, told)

    stage = Stage(uow, FakePlayers(dies))
    run_id = one_run(stage)
    with pytest.raises(Killed):
        stage.play(run_id)
    assert stage.run(run_id).state == "running"
    assert stage.indexes(run_id) == [0, 1, 2]

    stage.expire(run_id)
    freed = rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
    assert freed.freed == 1
    stage.players.answer = politely
    assert isinstance(stage.play(run_id), Done)

    assert stage.indexes(run_id) == list(range(7))
    assert [told for _, told in stage.players.asked] == [LINES[0], LINES[1], LINES[1], LINES[2]]
    said = stage.turns(run_id)
    assert len(said) == len(set(said))


def test_whoever_lost_the_lease_writes_nothing_more(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    taken: list[uuid.UUID] = []

    def overtaken(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        if not taken:
            taken.append(context.run_id)
            stage.expire(context.run_id)
            rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
            other = Stage(uow)
            assert isinstance(other.play(context.run_id), Done)
        return politely(context, history, told)

    stage.players.answer = overtaken
    run_id = one_run(stage)

    assert stage.play(run_id) == Skipped(LEASE_LOST)
    assert stage.indexes(run_id) == list(range(7))
    assert stage.run(run_id).outcome is not None


def test_a_run_that_kills_its_workers_ends_as_an_error_with_a_dead_letter(stage: Stage) -> None:
    run_id = one_run(stage)
    for _ in range(3):
        with stage.uow() as work:
            assert work.runs.claim(run_id, lease_s=60)
            work.commit()
        stage.expire(run_id)
        rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
        stage.make_due()

    row = stage.run(run_id)
    assert (row.state, row.outcome, row.error_kind) == ("dead", "error", "abandoned")
    assert stage.letters() == ["abandoned"]
    assert stage.suite(row.suite_run_id).state == "done"


# -- faults


def test_a_limit_of_the_provider_parks_the_run_where_it_stands(uow: UnitsOfWork) -> None:
    steps: list[AgentReply | Failure] = [says("Hello there."), BUSY, says("On we go, at ten."), says("Bye now.")]
    stage = Stage(uow, FakePlayers(lambda *_: steps.pop(0)))
    run_id = one_run(stage)

    outcome = stage.play(run_id)
    assert isinstance(outcome, Parked)
    row = stage.run(run_id)
    assert (row.state, row.attempt, row.error_code, row.turn_count) == ("pending", 0, "http_429", 4)
    assert stage.play(run_id) == Skipped("waiting for its next attempt")

    stage.make_due()
    assert isinstance(stage.play(run_id), Done)
    assert stage.indexes(run_id) == list(range(7))


def test_a_fault_is_tried_again_until_the_attempts_are_used_up(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: BROKEN))
    run_id = one_run(stage)

    for _ in range(2):
        assert isinstance(stage.play(run_id), RetryAt)
        stage.make_due()
    assert stage.play(run_id) == Dead("http_500")

    row = stage.run(run_id)
    assert (row.state, row.outcome, row.completion, row.message) == ("dead", "error", "error", BROKEN.message)
    assert stage.letters() == ["http_500"]


def test_attempts_are_counted_from_the_last_turn_on(uow: UnitsOfWork) -> None:
    stage, asked = Stage(uow), 0

    def every_other_time(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        nonlocal asked
        asked += 1
        return BROKEN if asked % 2 else politely(context, history, told)

    stage.players.answer = every_other_time
    run_id = one_run(stage, *(f"Line {number} please" for number in range(8)))

    while isinstance(outcome := stage.play(run_id), RetryAt):
        stage.make_due()

    assert isinstance(outcome, Done)
    assert stage.run(run_id).turn_count == 17
    assert asked == 16


def test_answers_that_nobody_can_use_are_counted_by_themselves(uow: UnitsOfWork) -> None:
    unreadable = Failure(FailureKind.UNREADABLE, "agent_reply", "The agent's reply is no JSON.")
    faults = [BROKEN, unreadable, unreadable]
    stage = Stage(uow, FakePlayers(lambda *_: faults.pop(0)))
    run_id = one_run(stage)

    outcomes = []
    for _ in range(3):
        outcomes.append(type(stage.play(run_id)))
        stage.make_due()

    assert outcomes == [RetryAt, RetryAt, Dead]


def test_a_broken_installation_is_an_error_soon(uow: UnitsOfWork) -> None:
    refused = Failure(FailureKind.BLOCKED, "http_401", "The key is refused.")
    stage = Stage(uow, FakePlayers(lambda *_: refused))
    run_id = one_run(stage)

    for _ in range(2):
        assert isinstance(stage.play(run_id), RetryAt)
        stage.make_due()

    assert stage.play(run_id) == Dead("http_401")
    assert stage.run(run_id).message == "The key is refused."


LATER = Failure(FailureKind.RATE_LIMITED, "agent_http_429", "The agent asks for fewer requests.", retry_after_s=3000)


def test_a_run_that_would_wait_beyond_its_time_is_graded_as_far_as_it_came(uow: UnitsOfWork) -> None:
    answers: list[AgentReply | Failure] = [says("Certainly, at ten."), LATER, LATER]
    stage = Stage(uow, FakePlayers(lambda *_: answers.pop(0)))
    stage.judged_by(ScriptedJudge([an_assessment()]))
    run_id = one_run(stage)

    assert isinstance(stage.play(run_id), Parked)
    stage.make_due()
    begin_earlier(stage, 1000)
    assert stage.play(run_id) == Done("passed")
    assert stage.run(run_id).completion == "timeout"


def test_a_run_in_which_nothing_happened_in_its_time_is_an_error(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: LATER))
    run_id = one_run(stage)

    assert isinstance(stage.play(run_id), Parked)
    stage.make_due()
    begin_earlier(stage, 1000)
    assert stage.play(run_id) == Dead("agent_http_429")
    row = stage.run(run_id)
    assert (row.outcome, row.message) == ("error", LATER.message)


def test_a_run_that_is_taken_up_after_its_time_asks_nobody_any_more(uow: UnitsOfWork) -> None:
    answers: list[AgentReply | Failure] = [says("Certainly, at ten."), BROKEN]
    stage = Stage(uow, FakePlayers(lambda *_: answers.pop(0)))
    first, second = stage.runs(stage.start(replace(a_scenario(), expected=TOLD), repeats=2))
    stage.play(first.id)
    stage.make_due()
    begin_earlier(stage, 4000)
    with uow() as work:
        claimed = work.runs.claim(second.id, lease_s=60)
        work.commit()
    assert claimed is not None
    stage.expire(second.id)
    rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
    begin_earlier(stage, 4000)
    stage.make_due()

    stage.play(first.id)
    assert stage.play(second.id) == Dead("run_deadline")

    assert [stage.run(row.id).completion for row in (first, second)] == ["timeout", "error"]
    assert len(stage.players.asked) == 2


def test_a_scenario_may_ask_for_more_time_than_the_installation_gives(uow: UnitsOfWork) -> None:
    answers: list[AgentReply | Failure] = [LATER, says("At ten."), says("So be it."), says("Bye.")]
    stage = Stage(uow, FakePlayers(lambda *_: answers.pop(0)))
    run_id = one_run(stage, limits=Limits(run_s=9000))

    stage.play(run_id)
    stage.make_due()
    begin_earlier(stage, 4000)

    assert isinstance(stage.play(run_id), Done)
    assert stage.run(run_id).completion == "script_ended"


def test_a_judge_is_waited_for_as_long_again_and_no_longer(stage: Stage) -> None:
    run_id = one_run(stage)
    no_key = Failure(FailureKind.BLOCKED, "no_judge", "This worker has no judge.")
    stage.judged_by(ScriptedJudge([no_key]))

    assert isinstance(stage.play(run_id), Parked)
    stage.make_due()
    begin_earlier(stage, 5000)
    assert isinstance(stage.play(run_id), Parked)
    stage.make_due()
    begin_earlier(stage, 2000)
    assert stage.play(run_id) == Dead("no_judge")
    assert (stage.run(run_id).outcome, stage.run(run_id).message) == ("error", no_key.message)


def begin_earlier(stage: Stage, seconds: float) -> None:
    """As if all runs had begun so long ago."""
    past = func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    with stage.uow.engine.begin() as connection:
        connection.execute(update(runs).values(begun_at=runs.c.begun_at - past))


def test_a_run_that_waits_says_what_for_and_until_when(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: BROKEN))
    run_id = one_run(stage)
    suite = stage.run(run_id).suite_run_id
    stage.play(run_id)

    progress, result = stage.queries.progress(suite), stage.queries.result(suite)

    assert progress is not None
    assert result is not None
    (waits,), (reported,) = progress.runs, result.runs
    row = stage.run(run_id)
    assert (waits.wait_reason, waits.message, waits.waits_until) == ("http_500", BROKEN.message, row.not_before)
    assert (reported.waits_for, reported.waits_until) == ("http_500", row.not_before)
    assert reported.why == f"waits (http_500): {BROKEN.message}"


def test_what_can_not_succeed_is_an_error_at_once(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: REFUSED))
    run_id = one_run(stage)

    assert stage.play(run_id) == Dead("http_400")
    assert stage.run(run_id).attempt == 1


def test_a_fault_of_ours_is_recorded_before_it_is_raised(uow: UnitsOfWork) -> None:
    def wrong(*_: object) -> AgentReply:
        raise ZeroDivisionError

    stage = Stage(uow, FakePlayers(wrong))
    run_id = one_run(stage)

    with pytest.raises(ZeroDivisionError):
        stage.play(run_id)
    row = stage.run(run_id)
    assert (row.state, row.error_code) == ("pending", "internal_error")


def test_without_a_player_the_run_is_an_error_that_says_why(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(politely, missing="no key for claude"))
    run_id = one_run(stage)

    assert stage.play(run_id) == Dead("no_player")
    row = stage.run(run_id)
    assert (row.state, row.outcome, row.completion) == ("dead", "error", "error")
    assert "no key for claude" in str(row.message)
    assert stage.letters() == ["no_player"]
    assert stage.suite(row.suite_run_id).state == "done"


def test_a_judge_that_is_away_parks_the_run_and_the_conversation_is_not_played_again(stage: Stage) -> None:
    run_id = one_run(stage)
    judge = ScriptedJudge([BUSY, an_assessment()])
    stage.judged_by(judge)

    assert isinstance(stage.play(run_id), Parked)
    row = stage.run(run_id)
    assert (row.state, row.completion, row.attempt) == ("pending", "script_ended", 0)
    stage.make_due()
    assert stage.play(run_id) == Done("passed")
    assert len(stage.players.asked) == len(LINES)
    (evaluation,) = stage.evaluations()
    assert evaluation.state == "done"


def test_a_judge_that_refuses_makes_an_error_and_buries_both_rows(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([REFUSED]))

    assert stage.play(run_id) == Dead("http_400")
    assert stage.run(run_id).outcome == "error"
    (evaluation,) = stage.evaluations()
    assert (evaluation.state, evaluation.verdict) == ("dead", "not_evaluated")
    assert [(letter.kind, letter.ref_id) for letter in letters(stage.uow)] == [("run", run_id)]


def test_the_grading_of_a_run_is_never_revived_as_that_of_a_production_call(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([REFUSED]))
    stage.play(run_id)
    (evaluation,) = stage.evaluations()

    with stage.uow() as work:
        assert work.evaluations.revive_one(evaluation.id) is None
        assert not work.evaluations.revive([])
        assert not work.evaluations.revive([evaluation.call_id])


def test_a_run_whose_grading_was_given_up_on_is_dead_too(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([Killed()] * 3))
    stage.change(runs, max_attempts=9)
    for _ in range(3):
        with pytest.raises(Killed):
            stage.play(run_id)
        stage.expire(run_id)
        rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
        with stage.uow() as work:
            work.evaluations.free_expired(limit=10)
            work.commit()
        stage.make_due()
    assert [evaluation.state for evaluation in stage.evaluations()] == ["dead"]
    assert letters(stage.uow) == []

    assert stage.play(run_id) == Dead("abandoned")
    assert [(letter.kind, letter.ref_id, letter.reason) for letter in letters(stage.uow)] == [
        ("run", run_id, "abandoned")
    ]
    assert stage.suite(stage.run(run_id).suite_run_id).state == "done"


def test_a_worker_that_dies_while_grading_loses_nothing(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([Killed(), an_assessment()]))
    with pytest.raises(Killed):
        stage.play(run_id)

    stage.expire(run_id)
    rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
    with stage.uow() as work:
        work.evaluations.free_expired(limit=10)
        work.commit()
    stage.make_due()
    assert stage.play(run_id) == Done("passed")
    assert len(stage.players.asked) == len(LINES)


# -- the caller's own fault


def test_a_run_that_the_caller_spoilt_is_played_again_and_never_counted(uow: UnitsOfWork) -> None:
    def lines(_context: PlayContext, _history: Sequence[Turn], number: int) -> CallerReply:
        return CallerReply("Thank you for calling, how can I help you today?" if number else "Hello, I need a table.")

    stage = Stage(uow, FakePlayers(politely, lines))
    suite = stage.start(a_scenario(limits=Limits(max_turns=3), play=Play.FREE))
    stage.play_all(suite)

    rows = stage.runs(suite)
    assert [(row.attempt_no, row.outcome) for row in rows] == [(1, "invalid"), (2, "invalid"), (3, "invalid")]
    assert stage.suite(suite).state == "done"
    assert stage.evaluations() == []
    result = stage.queries.result(suite)
    assert result is not None
    assert result.rate.n == 0


def test_a_caller_who_hangs_up_at_once_is_not_counted_against_the_agent(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(politely, lambda *_: CallerReply("Never mind, goodbye. [hangs up]", done=True)))
    stage.judged_by(ScriptedJudge([]))
    run_id = one_run(stage, play=Play.FREE)

    assert stage.play(run_id) == Done("invalid")
    assert str(stage.run(run_id).message).startswith("ended_too_early")


# -- cancel


def test_a_run_that_waits_is_cancelled_at_once(stage: Stage) -> None:
    run_id = one_run(stage)
    suite = stage.run(run_id).suite_run_id

    assert cancel_suite(suite_run_id=suite, workspace_name=MINE, tools=stage.tools.suites)

    row = stage.run(run_id)
    assert (row.state, row.outcome, row.completion) == ("dead", "cancelled", "cancelled")
    assert stage.suite(suite).state == "cancelled"
    assert stage.play(run_id) == Skipped("already over")
    assert stage.letters() == []


def test_a_running_run_stops_before_its_next_turn_and_keeps_what_happened(uow: UnitsOfWork) -> None:
    stage = Stage(uow)

    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        if told == LINES[1]:
            assert cancel_run(run_id=context.run_id, workspace_name=MINE, tools=stage.tools.suites)
        return politely(context, history, told)

    stage.players.answer = answer
    run_id = one_run(stage)

    assert stage.play(run_id) == Done("cancelled")
    row = stage.run(run_id)
    assert (row.state, row.outcome, row.turn_count) == ("done", "cancelled", 5)
    assert stage.indexes(run_id) == list(range(5))
    assert stage.suite(row.suite_run_id).state == "done"


def test_a_cancel_that_meets_the_end_leaves_the_verdict(uow: UnitsOfWork) -> None:
    stage = Stage(uow)

    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        if told == LINES[2]:
            cancel_suite(
                suite_run_id=stage.run(context.run_id).suite_run_id, workspace_name=MINE, tools=stage.tools.suites
            )
        return politely(context, history, told)

    stage.players.answer = answer
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([an_assessment()]))

    assert stage.play(run_id) == Done("passed")
    assert stage.suite(stage.run(run_id).suite_run_id).state == "cancelled"


def test_a_run_that_waits_for_its_judge_is_cancelled_with_its_evaluation(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.judged_by(ScriptedJudge([BUSY]))
    stage.play(run_id)

    assert cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)

    assert stage.run(run_id).outcome == "cancelled"
    (evaluation,) = stage.evaluations()
    assert (evaluation.state, list(evaluation.reasons)) == ("dead", ["cancelled"])


def test_a_cancelled_run_whose_worker_died_is_ended_by_the_dispatcher(stage: Stage) -> None:
    run_id = one_run(stage)
    with stage.uow() as work:
        work.runs.claim(run_id, lease_s=60)
        work.commit()
    suite = stage.run(run_id).suite_run_id
    cancel_suite(suite_run_id=suite, workspace_name=MINE, tools=stage.tools.suites)
    assert stage.run(run_id).state == "running"

    stage.expire(run_id)
    rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
    assert dispatch_runs(tools=stage.tools.suites, left=Left) == 0

    assert stage.run(run_id).outcome == "cancelled"
    assert stage.suite(suite).state == "cancelled"


def test_a_cancel_of_one_run_whose_worker_died_ends_it_without_another_word(stage: Stage) -> None:
    run_id = one_run(stage)
    for _ in range(3):
        with stage.uow() as work:
            assert work.runs.claim(run_id, lease_s=60)
            work.commit()
        cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)
        stage.expire(run_id)
        rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0)
        stage.make_due()

    assert stage.play(run_id) == Done("cancelled")
    assert stage.players.asked == []
    assert stage.letters() == []


@pytest.mark.parametrize("fault", [BROKEN, BUSY, REFUSED])
def test_a_cancel_that_meets_a_fault_of_a_player_ends_the_run_at_once(uow: UnitsOfWork, fault: Failure) -> None:
    stage = Stage(uow)

    def answer(context: PlayContext, _history: Sequence[Turn], _told: str) -> Failure:
        cancel_run(run_id=context.run_id, workspace_name=MINE, tools=stage.tools.suites)
        return fault

    stage.players.answer = answer
    run_id = one_run(stage)

    assert stage.play(run_id) == Done("cancelled")
    row = stage.run(run_id)
    assert (row.outcome, row.completion, row.turn_count) == ("cancelled", "cancelled", 2)
    assert stage.suite(row.suite_run_id).state == "done"
    assert stage.letters() == []
    assert stage.progress.events[-1].state.value == "cancelled"


def test_a_cancel_that_meets_a_fault_of_the_judge_leaves_nothing_to_wait_for(stage: Stage) -> None:
    run_id = one_run(stage)

    class Cancels(ScriptedJudge):
        def grade(self, request: JudgeRequest) -> JudgeAnswer:
            cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)
            return super().grade(request)

    stage.judged_by(Cancels([BUSY]))

    assert stage.play(run_id) == Done("cancelled")
    (evaluation,) = stage.evaluations()
    assert (evaluation.state, list(evaluation.reasons)) == ("dead", ["cancelled"])
    assert stage.letters() == []


def test_a_cancel_while_a_worker_gives_the_run_back_is_not_lost(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    run_id = one_run(stage)
    with uow() as work:
        claimed = work.runs.claim(run_id, lease_s=60)
        work.commit()
    assert claimed is not None
    given_back: list[str] = []

    def gives_it_back(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        """What the worker does just before the request is written on what seems to run."""
        if "cancel_requested_at IS NULL" in statement and not given_back:
            given_back.append(statement)
            with uow() as work:
                work.runs.wait(claimed.lease, wait_s=300, reason="http_500", counts=True, failure=BROKEN)
                work.commit()

    event.listen(uow.engine, "before_cursor_execute", gives_it_back)
    try:
        cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)
    finally:
        event.remove(uow.engine, "before_cursor_execute", gives_it_back)

    assert given_back
    assert stage.run(run_id).outcome == "cancelled"


def test_a_cancel_while_the_caller_thinks_keeps_its_line_and_asks_nobody(uow: UnitsOfWork) -> None:
    stage = Stage(uow)

    def lines(context: PlayContext, _history: Sequence[Turn], _number: int) -> CallerReply:
        cancel_run(run_id=context.run_id, workspace_name=MINE, tools=stage.tools.suites)
        return CallerReply("Hello, I need a table.", usage=Usage(output_tokens=6), cost_micro_usd=2)

    stage.players.lines = lines
    run_id = one_run(stage, play=Play.FREE)

    assert stage.play(run_id) == Done("cancelled")
    assert stage.players.asked == []
    assert (stage.run(run_id).turn_count, stage.run(run_id).cost_micro_usd) == (2, 2)


def test_a_cancel_that_comes_with_the_last_word_of_a_spoilt_run_begins_no_other_attempt(uow: UnitsOfWork) -> None:
    stage = Stage(uow)

    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        if len(history) == 5:
            cancel_run(run_id=context.run_id, workspace_name=MINE, tools=stage.tools.suites)
        return politely(context, history, told)

    stage.players.answer = answer
    stage.players.lines = lambda *_: CallerReply("Thank you for calling, how can I help you today?")
    suite = stage.start(a_scenario(limits=Limits(max_turns=3), play=Play.FREE))
    stage.play_all(suite)

    assert [row.outcome for row in stage.runs(suite)] == ["invalid"]
    assert stage.suite(suite).state == "done"


def test_a_cancel_of_a_spoilt_run_is_one_of_the_attempt_that_came_after_it(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    stage.players.lines = lambda *_: CallerReply("Thank you for calling, how can I help you today?")
    suite = stage.start(a_scenario(limits=Limits(max_turns=3), play=Play.FREE))
    stage.play(stage.runs(suite)[0].id)

    cancel_run(run_id=stage.runs(suite)[0].id, workspace_name=MINE, tools=stage.tools.suites)

    assert [row.outcome for row in stage.runs(suite)] == ["invalid", "cancelled"]


def test_a_cancel_is_seen_within_a_reply_of_many_model_calls(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    run_id = one_run(stage, limits=Limits(max_turns=1))
    asked: list[ChatRequest] = []

    class Model:
        def say(self, request: ChatRequest) -> ChatAnswer:
            asked.append(request)
            cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)
            return ChatAnswer(Said("", (ToolCall("look_up", {}, f"call_{len(asked)}"),)), Usage(output_tokens=7), 5)

    class WithModel(FakePlayers):
        def agent(self, _context: PlayContext) -> AgentPlayer:
            return ModelAgent(Model(), Turned("some-model", "low", 100))

    stage.tools = replace(stage.tools, players=WithModel(politely))

    assert stage.play(run_id) == Done("cancelled")
    assert len(asked) == 1
    row = stage.run(run_id)
    assert (row.completion, row.cost_micro_usd, row.turn_count) == ("cancelled", 5, 4)
    assert stage.evaluations() == []


def test_a_cancel_is_seen_within_a_real_silence_and_nobody_is_asked_after_it(stage: Stage) -> None:
    run_id = one_run(stage, "Hello.", "[silence - 30 seconds] Still there? [hangs up]", kind=AgentKind.HTTP)

    def sleep(seconds: float) -> None:
        stage.slept.append(seconds)
        if len(stage.slept) == 3:
            cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)

    stage.tools = replace(stage.tools, sleep=sleep)

    assert stage.play(run_id) == Done("cancelled")
    assert stage.slept == [1.0, 1.0, 1.0]
    assert [told for _, told in stage.players.asked] == ["Hello."]


def test_a_cancel_after_the_end_changes_nothing(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.play(run_id)
    before = stage.run(run_id)

    assert cancel_run(run_id=run_id, workspace_name=MINE, tools=stage.tools.suites)
    assert cancel_suite(suite_run_id=before.suite_run_id, workspace_name=MINE, tools=stage.tools.suites)
    assert stage.run(run_id) == before
    assert not cancel_run(run_id=uuid.uuid4(), workspace_name=MINE, tools=stage.tools.suites)
    assert not cancel_suite(suite_run_id=uuid.uuid4(), workspace_name=MINE, tools=stage.tools.suites)


def test_nobody_cancels_or_sees_what_belongs_to_another_workspace(stage: Stage) -> None:
    run_id = one_run(stage)
    suite = stage.run(run_id).suite_run_id
    stage.judged_by(ScriptedJudge([an_assessment()]))

    assert not cancel_run(run_id=run_id, workspace_name="other", tools=stage.tools.suites)
    assert not cancel_suite(suite_run_id=suite, workspace_name="other", tools=stage.tools.suites)
    assert stage.play(run_id) == Done("passed")
    assert stage.read_side.result(suite, workspace_name="other") is None
    assert stage.read_side.progress(suite, workspace_name="other") is None
    assert not stage.read_side.turns(run_id, workspace_name="other")
    assert stage.read_side.turns(run_id, workspace_name=MINE)


def test_every_step_is_told_to_those_who_watch(stage: Stage) -> None:
    run_id = one_run(stage)
    stage.play(run_id)

    events = stage.progress.events
    assert [event.turns for event in events] == [0, 1, 3, 5, 7, 7]
    assert events[-1].state.value == stage.run(run_id).outcome
    assert an_agent().agent.id == "booking"
