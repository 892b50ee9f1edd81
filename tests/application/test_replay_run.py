"""A run that was given up on goes on where it stood, whoever asks for it, and its suite run ends anew with it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence

import pytest
from sqlalchemy import func, text, update

from qa_worker.adapters.postgres.alert_queries import PostgresAlertQueries
from qa_worker.adapters.postgres.tables import runs
from qa_worker.application.dead_letters import Refused, Replay, Replayed
from qa_worker.application.playing import AgentReply, PlayContext
from qa_worker.application.replay_dead_letter import SETTLED
from qa_worker.application.run_suite import cancel_suite
from qa_worker.domain.dead_letter import Choice, LetterKind
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done
from qa_worker.domain.transcript import Turn
from qa_worker.messages import run_scenario
from tests.builders import an_assessment
from tests.conftest import Outbox, UnitsOfWork
from tests.fakes import ScriptedJudge
from tests.letters import letters, replay
from tests.running import LINES, MINE, FakePlayers, Stage, a_scenario, politely

pytestmark = pytest.mark.services

REFUSED = Failure(FailureKind.REJECTED, "http_400", "The agent's endpoint refuses the request.")


class Broken:
    """An agent that refuses the caller's second line until it is mended."""

    def __init__(self) -> None:
        self.mended = False

    def __call__(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        return REFUSED if told == LINES[1] and not self.mended else politely(context, history, told)


@pytest.fixture
def agent() -> Broken:
    return Broken()


@pytest.fixture
def stage(uow: UnitsOfWork, agent: Broken) -> Stage:
    """An agent that refuses, and a judge that passes whatever comes."""
    made = Stage(uow, FakePlayers(agent))
    made.judged_by(ScriptedJudge([an_assessment()] * 9))
    return made


def _dead_run(stage: Stage) -> uuid.UUID:
    (row,) = stage.runs(stage.start())
    assert stage.play(row.id) == Dead("http_400")
    run_id: uuid.UUID = row.id
    return run_id


def _outcome(stage: Stage) -> str:
    view = PostgresAlertQueries(stage.uow.engine).letter(letters(stage.uow)[0].id)
    assert view is not None
    return view.outcome


def test_a_replayed_run_goes_on_at_the_turn_where_it_stood(stage: Stage, agent: Broken, outbox: Outbox) -> None:
    run_id = _dead_run(stage)
    suite = stage.run(run_id).suite_run_id
    before = stage.turns(run_id)
    (letter,) = letters(stage.uow)
    assert (letter.kind, letter.ref_id, stage.suite(suite).state) == ("run", run_id, "done")
    outbox.sent.clear()
    stage.players.asked.clear()
    agent.mended = True

    assert replay(stage.uow) == [Replayed(letter.id, LetterKind.RUN, run_id)]

    row = stage.run(run_id)
    assert (row.state, row.attempt, row.outcome, row.completion, row.completed_at) == ("queued", 0, None, None, None)
    assert (stage.suite(suite).state, stage.suite(suite).completed_at) == ("running", None)
    assert (outbox.sent, _outcome(stage)) == ([run_scenario(run_id)], "pending")
    assert stage.play(run_id) == Done("passed")
    assert [told for _, told in stage.players.asked] == list(LINES[1:])
    assert stage.turns(run_id)[: len(before)] == before
    assert stage.indexes(run_id) == list(range(7))
    assert (stage.suite(suite).state, _outcome(stage)) == ("done", "passed")
    result = stage.queries.result(suite)
    assert result is not None
    assert (result.rate.successes, result.rate.n) == (1, 1)


@pytest.mark.parametrize("dies", ["playing", "grading"])
def test_the_time_of_a_replayed_run_begins_anew(stage: Stage, agent: Broken, dies: str) -> None:
    agent.mended = dies == "grading"
    stage.judged_by(ScriptedJudge([REFUSED if dies == "grading" else an_assessment(), an_assessment()]))
    run_id = _dead_run(stage)
    with stage.uow.engine.begin() as connection:
        connection.execute(update(runs).values(begun_at=func.now() - text("'9 hours'::interval")))
    agent.mended = True

    replay(stage.uow)

    assert stage.play(run_id) == Done("passed")


def test_a_run_whose_grading_died_is_graded_again_and_not_played_again(stage: Stage, agent: Broken) -> None:
    agent.mended = True
    stage.judged_by(ScriptedJudge([REFUSED, an_assessment()]))
    run_id = _dead_run(stage)
    asked = len(stage.players.asked)
    (letter,) = letters(stage.uow)
    view = PostgresAlertQueries(stage.uow.engine).letter(letter.id)
    assert view is not None
    assert [(one.result, one.error_code) for one in view.tries] == [("dead", "http_400")]

    replay(stage.uow)

    (evaluation,) = stage.evaluations()
    assert (evaluation.state, evaluation.attempt, evaluation.verdict) == ("pending", 0, None)
    assert stage.run(run_id).completion == "script_ended"
    assert stage.play(run_id) == Done("passed")
    assert len(stage.players.asked) == asked
    (evaluation,) = stage.evaluations()
    assert (evaluation.state, evaluation.verdict) == ("done", "pass")


def test_two_operators_who_replay_the_same_runs_let_each_go_on_once(
    stage: Stage, agent: Broken, outbox: Outbox
) -> None:
    suite = stage.start(*(a_scenario(f"number-{number}") for number in range(6)))
    stage.play_all(suite)
    assert [row.outcome for row in stage.runs(suite)] == ["error"] * 6
    outbox.sent.clear()
    agent.mended = True
    barrier = threading.Barrier(2)
    answers: list[Replay] = []

    def operate(name: str) -> None:
        barrier.wait()
        answers.extend(replay(stage.uow, Choice(state=None), by=name))

    operators = [threading.Thread(target=operate, args=(name,)) for name in ("ann", "bob")]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()

    ids = sorted(row.id for row in stage.runs(suite))
    assert sorted(one.started for one in answers if isinstance(one, Replayed)) == ids
    assert [one.why for one in answers if isinstance(one, Refused)] == [SETTLED] * 6
    assert sorted(message.kwargs["run_id"] for message in outbox.sent) == [str(one) for one in ids]
    stage.play_all(suite)
    assert [row.outcome for row in stage.runs(suite)] == ["passed"] * 6
    assert stage.suite(suite).state == "done"


def test_a_replayed_run_waits_for_room_in_a_suite_that_still_goes_on(stage: Stage, agent: Broken) -> None:
    suite = stage.start(a_scenario("one"), a_scenario("two"), max_parallel=1)
    first, second = stage.runs(suite)
    stage.play(first.id)
    agent.mended = True

    replay(stage.uow)

    assert [row.state for row in stage.runs(suite)] == ["pending", "queued"]
    stage.play(second.id)
    assert [row.state for row in stage.runs(suite)] == ["queued", "done"]
    assert stage.suite(suite).state == "running"
    stage.play(first.id)
    assert (stage.suite(suite).state, stage.letters()) == ("done", ["http_400"])


def test_a_run_that_dies_again_is_a_new_letter_that_says_so(stage: Stage) -> None:
    run_id = _dead_run(stage)
    replay(stage.uow)

    assert stage.play(run_id) == Dead("http_400")

    first, second = letters(stage.uow)
    assert (first.state, second.state, second.deaths, second.again_of) == ("replayed", "open", 2, first.id)
    assert stage.suite(stage.run(run_id).suite_run_id).state == "done"


def test_what_somebody_cancelled_is_not_begun_again(stage: Stage) -> None:
    suite = stage.start(a_scenario("one"), a_scenario("two"), max_parallel=1)
    first, _ = stage.runs(suite)
    stage.play(first.id)
    cancel_suite(suite_run_id=suite, workspace_name=MINE, tools=stage.tools.suites)

    (answer,) = replay(stage.uow)

    assert isinstance(answer, Refused)
    assert "cancelled" in answer.why
    assert [row.outcome for row in stage.runs(suite)] == ["error", "cancelled"]
    assert (stage.suite(suite).state, letters(stage.uow)[0].state) == ("cancelled", "open")
