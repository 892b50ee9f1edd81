"""Suite runs: begun in one transaction, a bounded number in flight, fair between suites. Real database."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import update

from qa_worker.adapters.postgres.records import GroupedRecords
from qa_worker.adapters.postgres.tables import alert_matches, runs
from qa_worker.application.playing import AgentReply, CallerReply, PlayContext, Target
from qa_worker.application.purse import Left
from qa_worker.application.run_suite import cancel_suite, dispatch_runs, rescue_runs, start_suite
from qa_worker.application.running import MOST_RUNS, ProgressEvent, SuiteProgress, WantedSuite, Watching
from qa_worker.application.watch_suite import watch_suite
from qa_worker.domain.alert_rule import AlertRule, AlertSeverity, RuleKind
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Done, Skipped
from qa_worker.domain.run import RunState
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Limits, Play, Scenario, Told
from qa_worker.domain.transcript import Role, Turn
from qa_worker.messages import Queue
from tests.alerting import add_calls, add_rule, agent_of, rows
from tests.builders import an_assessment
from tests.conftest import Outbox, UnitsOfWork
from tests.fakes import ScriptedJudge
from tests.running import LINES, MINE, TOLD, FakePlayers, Stage, a_scenario, an_agent, politely

pytestmark = pytest.mark.services

REFUSED = Failure(FailureKind.REJECTED, "http_400", "The agent's endpoint refuses the request.")


@pytest.fixture
def stage(uow: UnitsOfWork) -> Stage:
    return Stage(uow)


def many(count: int) -> list[Scenario]:
    return [replace(a_scenario(f"s{number}"), expected=TOLD) for number in range(count)]


def states(stage: Stage, suite: uuid.UUID) -> Counter[str]:
    return Counter(str(row.state) for row in stage.runs(suite))


def test_all_runs_are_made_at_once_and_as_many_are_sent_as_may_be_in_flight(stage: Stage, outbox: Outbox) -> None:
    suite = stage.start(*many(4), repeats=3, max_parallel=5)

    assert states(stage, suite) == {"queued": 5, "pending": 7}
    assert [message.queue for message in outbox.sent] == [Queue.RUN_SCENARIO] * 5
    queued = {str(row.id) for row in stage.runs(suite) if row.state == "queued"}
    assert {message.kwargs["run_id"] for message in outbox.sent} == queued


def test_a_scenario_says_itself_how_often_it_is_run(stage: Stage) -> None:
    suite = stage.start(replace(a_scenario("one"), repeats=3), a_scenario("two"))

    assert [(row.position, row.repeat) for row in stage.runs(suite)] == [(0, 1), (0, 2), (0, 3), (1, 1)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scenarios": ()}, "scenarios"),
        ({"repeats": MOST_RUNS + 1}, "scenarios"),
        ({"max_parallel": 0}, "max_parallel"),
        ({"scenarios": (a_scenario(), a_scenario())}, "scenarios"),
        ({"scenarios": (replace(a_scenario(), agent="clinic"),)}, "agent"),
        ({"scenarios": (replace(a_scenario(), ends=Ends(tools=("book_table",))),)}, "expected"),
        ({"scenarios": (replace(a_scenario(), rubric="nonexistent"),)}, "rubric"),
    ],
)
def test_what_can_not_be_run_is_refused_before_anything_is_stored(
    stage: Stage, change: dict[str, object], field: str
) -> None:
    wanted = WantedSuite("nightly", (a_scenario(),), an_agent(), Target(), 4)
    changed = replace(wanted, **change)  # type: ignore[arg-type]  # each is a field of it

    with pytest.raises(InvalidInput) as refused:
        start_suite(changed, workspace_name="default", max_attempts=3, tools=stage.tools.suites)
    assert refused.value.field == field
    assert list(stage.queries.recent("default", limit=5)) == []


def test_the_installations_rubric_and_those_of_the_workspace_are_known(stage: Stage) -> None:
    own = stage.tools.grading.grading.rubric
    theirs = replace(own, rubric=replace(own.rubric, name="theirs"))
    with stage.uow() as work:
        work.rubrics.set_default("default", theirs, agent_ref=None)
        work.commit()

    for name in (own.rubric.name, "theirs"):
        suite = stage.start(replace(a_scenario(), rubric=name))
        assert states(stage, suite) == {"queued": 1}


def test_a_finishing_run_sends_the_next_and_the_suite_ends_with_its_last(stage: Stage, outbox: Outbox) -> None:
    suite = stage.start(*many(3), max_parallel=1)
    for left in (2, 1, 0):
        (queued,) = [row.id for row in stage.runs(suite) if row.state == "queued"]
        stage.play(queued)
        assert states(stage, suite)["pending"] == max(0, left - 1)

    assert len(outbox.sent) == 3
    assert stage.suite(suite).state == "done"
    assert stage.suite(suite).completed_at is not None


def test_suites_take_turns_however_long_one_of_them_is(stage: Stage) -> None:
    tools = replace(stage.tools.suites, in_flight_limit=6)
    stage.tools = replace(stage.tools, suites=tools)
    first = stage.start(*many(20))
    second = stage.start(*many(3))
    with stage.uow.engine.begin() as connection:
        connection.execute(update(runs).values(state="pending"))

    assert dispatch_runs(tools=tools, left=Left) == 6
    assert (states(stage, first)["queued"], states(stage, second)["queued"]) == (3, 3)
    assert dispatch_runs(tools=tools, left=Left) == 0


def test_a_suite_that_has_less_in_flight_goes_first(stage: Stage) -> None:
    stage.start(*many(20), max_parallel=10)
    second = stage.start(*many(5), max_parallel=10)
    with stage.uow.engine.begin() as connection:
        connection.execute(update(runs).where(runs.c.suite_run_id == second).values(state="pending"))

    tools = replace(stage.tools.suites, in_flight_limit=14)
    assert dispatch_runs(tools=tools, left=Left) == 4
    assert states(stage, second)["queued"] == 4


def test_what_a_run_frees_goes_to_the_suite_that_has_less_in_flight(stage: Stage) -> None:
    limit_in_flight(stage, 6)
    first = stage.start(*many(20))
    second = stage.start(*many(3))
    assert states(stage, second) == {"pending": 3}

    for _ in range(3):
        stage.play(next(row.id for row in stage.runs(first) if row.state == "queued"))

    assert states(stage, first) == {"done": 3, "queued": 3, "pending": 14}
    assert states(stage, second) == {"queued": 3}


def test_a_suite_that_has_as_little_in_flight_as_others_has_its_turn(stage: Stage) -> None:
    limit_in_flight(stage, 1)
    suites = [stage.start(*many(40)) for _ in range(2)]
    last = stage.start(*many(1))

    for _ in range(60):
        queued = next(row.id for one in (*suites, last) for row in stage.runs(one) if row.state == "queued")
        stage.play(queued)
        if states(stage, last)["done"]:
            break

    assert stage.suite(last).state == "done"
    assert all(states(stage, one)["pending"] for one in suites)


def test_the_end_of_a_suite_makes_room_for_another_one(stage: Stage) -> None:
    limit_in_flight(stage, 1)
    first = stage.start(*many(1))
    second = stage.start(*many(1))

    stage.play_all(first)

    assert states(stage, second) == {"queued": 1}


def limit_in_flight(stage: Stage, limit: int) -> None:
    stage.tools = replace(stage.tools, suites=replace(stage.tools.suites, in_flight_limit=limit))


def test_many_workers_at_once_never_exceed_max_parallel_and_share_nothing(uow: UnitsOfWork) -> None:
    in_flight: list[int] = []
    strange: list[str] = []

    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        now = states(stage, suite)
        in_flight.append(now["queued"] + now["running"])
        heard = [turn.text for turn in history if turn.role is Role.CALLER]
        strange.extend(text for text in (*heard, told) if text not in context.scenario.lines)
        return politely(context, history, told)

    stage = Stage(uow, FakePlayers(answer))
    scenarios = [
        replace(a_scenario(f"s{n}", f"Number {n} please.", f"I said {n}.", f"Bye from {n}."), expected=TOLD)
        for n in range(12)
    ]
    stage.tools = replace(stage.tools, grading=replace(stage.tools.grading, records=_grouped(uow)))
    suite = stage.start(*scenarios, max_parallel=4)

    def work() -> None:
        while queued := [row.id for row in stage.runs(suite) if row.state == "queued"]:
            stage.play(queued[0])

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work) for _ in range(6)]:
            future.result()
    stage.play_all(suite)
    _close(stage)

    assert max(in_flight) <= 4
    assert strange == []
    assert len(stage.players.asked) == 36
    for number, row in enumerate(stage.runs(suite)):
        assert row.outcome is not None
        said = [line for line in stage.turns(row.id) if line.startswith("caller")]
        assert said == [f"caller: {line}" for line in scenarios[number].lines]
    assert stage.suite(suite).state == "done"


def _grouped(uow: UnitsOfWork) -> GroupedRecords:
    return GroupedRecords(uow, window_s=0.002, patience_s=5)


def _close(stage: Stage) -> None:
    records = stage.tools.grading.records
    assert isinstance(records, GroupedRecords)
    records.close()


def test_two_workers_that_get_the_same_message_play_it_once(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    suite = stage.start(*many(1))
    (row,) = stage.runs(suite)
    barrier = threading.Barrier(2)

    def play() -> object:
        barrier.wait(5)
        return stage.play(row.id)

    with ThreadPoolExecutor(2) as pool:
        outcomes = [future.result() for future in [pool.submit(play), pool.submit(play)]]

    assert {type(outcome) for outcome in outcomes} == {Done, Skipped}
    assert len(stage.players.asked) == len(LINES)


def test_a_run_whose_message_was_lost_is_sent_again(stage: Stage, outbox: Outbox) -> None:
    stage.start(*many(2))
    outbox.sent.clear()

    assert rescue_runs(tools=stage.tools.suites, resend_after_s=0, waiting=lambda: 2).resent == 0
    assert rescue_runs(tools=stage.tools.suites, resend_after_s=0, waiting=lambda: 1).resent == 1
    assert len(outbox.sent) == 1


def test_the_result_tells_what_was_measured(stage: Stage) -> None:
    bad = replace(a_scenario("bad"), expected=ExpectedOutcome(told=(Told("the reference", ("HT-9999",)),)))
    stage.judged_by(ScriptedJudge([an_assessment()]))
    suite = stage.start(*many(2), bad, repeats=2, agent=an_agent("7"))
    stage.play_all(suite)

    result = stage.queries.result(suite)
    assert result is not None
    assert (result.name, result.agent, result.agent_version) == ("nightly", "booking", "7")
    assert (result.rate.successes, result.rate.n) == (4, 6)
    assert result.exit_code == 1
    assert [run.overall is not None for run in result.runs] == [True] * 6
    assert all(run.cost_micro_usd and run.cost_micro_usd > 9 for run in result.runs)
    assert (result.target, result.callers, result.judges) == ("scripted", ("fake",), ("claude",))
    assert len(result.rubric_versions) == 1
    assert result.over
    (line,) = stage.queries.recent("default", limit=5)
    assert line.runs == {RunState.PASSED: 4, RunState.FAILED: 2}


def test_a_failed_run_and_its_suite_match_the_rules_of_alerts(uow: UnitsOfWork, outbox: Outbox) -> None:
    stage = Stage(uow)
    stage.judged_by(ScriptedJudge([an_assessment()]))
    bad = replace(a_scenario("bad"), expected=ExpectedOutcome(told=(Told("the reference", ("HT-9999",)),)))
    suite = stage.start(bad)
    workspace = workspace_id("default")
    with uow() as work:
        for kind in (RuleKind.RUN_FAILED, RuleKind.SUITE_FAILED, RuleKind.EVALUATION_FAILED):
            rule = AlertRule(uuid.uuid4(), workspace, kind.value, kind, AlertSeverity.WARNING)
            work.alert_rules.add(rule, [])
        work.commit()
    outbox.sent.clear()
    stage.play_all(suite)

    # Two: the run and the suite. The evaluation of a run is no production call, and nobody is woken for it.
    assert len([message for message in outbox.sent if message.queue is Queue.SEND_ALERT]) == 2


def _told(stage: Stage, *kinds: RuleKind, agent_id: uuid.UUID | None = None) -> None:
    """Rules of the workspace about these."""
    for kind in kinds:
        add_rule(stage.uow, kind, workspace=WorkspaceId(workspace_id("default")), agent_id=agent_id)


def _details(stage: Stage) -> list[str]:
    return sorted(str(row.detail) for row in rows(stage.uow, alert_matches))


def test_a_run_that_could_not_be_measured_and_its_suite_match_too(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: REFUSED))
    suite = stage.start(*many(2))
    _told(stage, RuleKind.RUN_FAILED, RuleKind.SUITE_FAILED)

    stage.play_all(suite)

    assert _details(stage) == [
        "0 of 0 measured runs failed, 2 could not be measured",
        "scenario s0 could not be measured: http_400",
        "scenario s1 could not be measured: http_400",
    ]


def test_a_run_whose_workers_died_matches_as_one_that_could_not_be_measured(stage: Stage) -> None:
    suite = stage.start(*many(1))
    _told(stage, RuleKind.RUN_FAILED, RuleKind.SUITE_FAILED)
    (run,) = stage.runs(suite)
    with stage.uow.engine.begin() as connection:
        connection.execute(update(runs).values(max_attempts=1))
    with stage.uow() as work:
        assert work.runs.claim(run.id, lease_s=60)
        work.commit()
    stage.expire(run.id)

    assert rescue_runs(tools=stage.tools.suites, resend_after_s=60, waiting=lambda: 0).buried == 1

    assert _details(stage) == [
        "0 of 0 measured runs failed, 1 could not be measured",
        "scenario s0 could not be measured: its workers died",
    ]


def test_a_suite_that_the_caller_spoilt_could_not_be_measured(uow: UnitsOfWork) -> None:
    def lines(_context: PlayContext, _history: Sequence[Turn], number: int) -> CallerReply:
        return CallerReply("Thank you for calling, how can I help you today?" if number else "Hello, I need a table.")

    stage = Stage(uow, FakePlayers(politely, lines))
    suite = stage.start(a_scenario(limits=Limits(max_turns=3), play=Play.FREE))
    _told(stage, RuleKind.RUN_FAILED, RuleKind.SUITE_FAILED)

    stage.play_all(suite)

    assert _details(stage) == ["0 of 0 measured runs failed, 1 could not be measured"]


def test_a_rule_of_one_agent_sees_its_runs_that_were_never_graded(uow: UnitsOfWork) -> None:
    stage = Stage(uow, FakePlayers(lambda *_: REFUSED))
    add_calls(uow, "call-1", workspace="default")
    agent = agent_of(uow, WorkspaceId(workspace_id("default")))
    _told(stage, RuleKind.RUN_FAILED, agent_id=agent)

    stage.play_all(stage.start(*many(1)))

    (match,) = rows(uow, alert_matches)
    assert (match.agent_id, match.detail) == (agent, "scenario s0 could not be measured: http_400")


def test_a_suite_that_passed_or_was_cancelled_wakes_nobody(stage: Stage) -> None:
    stage.judged_by(ScriptedJudge([an_assessment()]))
    passed, cancelled = stage.start(*many(1)), stage.start(*many(2))
    _told(stage, RuleKind.RUN_FAILED, RuleKind.SUITE_FAILED)

    stage.play_all(passed)
    cancel_suite(suite_run_id=cancelled, workspace_name=MINE, tools=stage.tools.suites)

    assert (stage.suite(passed).state, stage.suite(cancelled).state) == ("done", "cancelled")
    assert _details(stage) == []


class Events:
    """Implements the port `Feed` from a list of batches."""

    def __init__(self, *batches: Sequence[ProgressEvent]) -> None:
        self.batches = list(batches)
        self.opened = False

    def open(self, suite_run_id: uuid.UUID) -> Events:
        assert suite_run_id.version
        return self

    def __enter__(self) -> Watching:
        self.opened = True
        return self

    def __exit__(self, *_: object) -> None:
        self.opened = False

    def wait(self, timeout_s: float) -> Sequence[ProgressEvent]:
        assert timeout_s > 0
        return self.batches.pop(0) if self.batches else ()


def test_who_watches_sees_the_rows_first_then_events_then_the_end(stage: Stage) -> None:
    suite = stage.start(*many(1), replace(a_scenario("long"), limits=Limits(max_turns=1)))
    first, second = stage.runs(suite)
    stage.play(first.id)
    feed = Events([ProgressEvent(second.id, suite, RunState.RUNNING, 1)], ())
    seen: list[object] = []
    for one in watch_suite(suite_run_id=suite, workspace_name=MINE, queries=stage.read_side, feed=feed):
        seen.append(one)
        assert feed.opened
        if len(seen) == 2:
            stage.play(second.id)

    past, event, end = seen
    assert isinstance(past, SuiteProgress)
    assert [run.state.value for run in past.runs] == [stage.run(first.id).outcome, "pending"]
    assert isinstance(event, ProgressEvent)
    assert isinstance(end, SuiteProgress)
    assert end.state.value == "done"
    assert [run.max_turns for run in end.runs] == [20, 1]


def test_who_watches_what_nobody_knows_is_told(stage: Stage) -> None:
    with pytest.raises(LookupError):
        next(watch_suite(suite_run_id=uuid.uuid4(), workspace_name=MINE, queries=stage.read_side, feed=Events()))
