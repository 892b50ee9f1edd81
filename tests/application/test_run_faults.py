"""What goes wrong in the test itself: kept with the turn, told in the report, never the agent's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qa_worker.application.playing import CallerReply, PlayContext
from qa_worker.domain.scenario import Play
from qa_worker.domain.transcript import Turn
from tests.conftest import UnitsOfWork
from tests.running import TOLD, FakePlayers, Stage, a_scenario, politely


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
