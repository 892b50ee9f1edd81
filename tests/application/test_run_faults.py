"""What goes wrong in the test itself: kept with the turn, told in the report, never the agent's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qa_worker.application.playing import AgentReply, CallerReply, PlayContext
from qa_worker.domain.scenario import Play
from qa_worker.domain.transcript import Turn
from tests.builders import an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import ScriptedJudge
from tests.running import TOLD, FakePlayers, Stage, a_scenario, politely, says


def test_markers_that_a_caller_made_up_are_never_spoken_and_counted_in_the_report(uow: UnitsOfWork) -> None:
    lines = ("I need a table. [sighs]", "For *long pause* two, at eight.", "Goodbye then. [hang up]")

    def speak(_context: PlayContext, _history: Sequence[Turn], number: int) -> CallerReply:
        return CallerReply(lines[number])

    stage = Stage(uow, FakePlayers(politely, speak))
    suite_run_id = stage.start(replace(a_scenario(play=Play.FREE), expected=TOLD))
    stage.play_all(suite_run_id)

    result = stage.queries.result(suite_run_id)
    assert result is not None
    (run,) = result.runs
    assert run.test_faults == ("[sighs] is not a marker", "*long pause* looks like a marker")
    said = [turn for turn in stage.turns(stage.runs(suite_run_id)[0].id) if turn.startswith("caller")]
    assert said == ["caller: I need a table.", "caller: For two, at eight.", "caller: Goodbye then."]
    assert run.completion is not None
    assert run.completion.value == "caller_hung_up"


def test_how_fast_an_agent_yields_is_not_measured_and_the_judge_is_told_where_it_was_cut(uow: UnitsOfWork) -> None:
    def answer(_context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        return says("Your total is forty pounds at ten." if not history[1:] else f"Yes, {told}")

    stage = Stage(uow, FakePlayers(answer))
    judge = ScriptedJudge([an_assessment()])
    stage.judged_by(judge)
    suite_run_id = stage.start(a_scenario("plain", "A table.", '[interrupts after "total is"] Make it Sunday.'))
    stage.play_all(suite_run_id)

    (asked,) = judge.requests
    told = "in turn 2 the caller interrupted the agent, and the rest of it was never heard"
    assert asked.evidence.notes == (f"{told}; see whether turn 4 gives way and answers what they said",)
    (evaluation,) = stage.evaluations()
    timing = evaluation.evidence["timing"]
    assert (timing["caller_interruptions"], timing["yield_mean_s"], timing["yield_rate"]) == (1, None, None)
    assert timing["overlap_s"] > 0
    assert evaluation.evidence["notes"] == list(asked.evidence.notes)


def test_the_report_says_that_an_interruption_did_not_happen(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    suite_run_id = stage.start(a_scenario("plain", "A table.", '[interrupts after "refund"] Make it Sunday.'))
    stage.play_all(suite_run_id)

    result = stage.queries.result(suite_run_id)
    assert result is not None
    assert result.runs[0].test_faults == ('nobody was interrupted: the agent did not say "refund" with more to come',)
