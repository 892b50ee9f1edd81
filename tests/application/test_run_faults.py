"""What goes wrong in the test itself: kept with the turn, told in the report, never the agent's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qa_worker.adapters.agents.scripted import ScriptedAgent
from qa_worker.application.playing import AgentReply, CallerReply, PlayContext
from qa_worker.domain.agent_under_test import Conversation, Reply, Script
from qa_worker.domain.call import ToolSpec
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Play
from qa_worker.domain.transcript import ToolCall, Turn
from tests.builders import an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import ScriptedJudge
from tests.running import TOLD, FakePlayers, Stage, a_scenario, an_agent, politely, says

pytestmark = pytest.mark.services


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
    assert f"{told}; see whether turn 4 gives way and answers what they said" in asked.evidence.notes
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


def test_a_tool_without_an_answer_is_a_fault_of_the_test_and_not_of_the_agent(uow: UnitsOfWork) -> None:
    """The rules judge would take a level for a tool that failed, and Claude is told why this one did."""

    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        return ScriptedAgent(context.agent.script).reply(context, history, told)

    call = ToolCall("find_table", {"day": "Friday"})
    script = Script((Conversation(("table",), (Reply("It is free at ten.", (call,)), Reply("Goodbye."))),))
    agent = an_agent()
    agent = replace(agent, script=script, agent=replace(agent.agent, tools=(ToolSpec("find_table"),)))
    stage = Stage(uow, FakePlayers(answer))
    scenario = replace(a_scenario("plain", "A table, please.", "Thank you. Goodbye."), expected=TOLD)
    suite_run_id = stage.start(scenario, agent=agent)
    stage.play_all(suite_run_id)

    result = stage.queries.result(suite_run_id)
    assert result is not None
    (run,) = result.runs
    assert run.test_faults == ('no mock answers find_table({"day":"Friday"})',)
    assert run.findings == ()
    (evaluation,) = stage.evaluations()
    told = "turn 3 is an error because the test had no answer for that tool call; it is not the agent's fault"
    assert told in evaluation.evidence["notes"]


def test_an_agent_hangs_up_by_a_tool_that_needs_no_mock(uow: UnitsOfWork) -> None:
    def answer(context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply:
        return ScriptedAgent(context.agent.script).reply(context, history, told)

    script = Script((Conversation(("table",), (Reply("Not at ten. Goodbye.", (ToolCall("end_call", {}),)),)),))
    agent = an_agent()
    agent = replace(agent, script=script, agent=replace(agent.agent, tools=(ToolSpec("end_call"),)))
    stage = Stage(uow, FakePlayers(answer))
    suite_run_id = stage.start(a_scenario("plain", "A table, please.", "Why not?"), agent=agent)
    stage.play_all(suite_run_id)

    result = stage.queries.result(suite_run_id)
    assert result is not None
    assert (result.runs[0].completion, result.runs[0].test_faults) == (Completion.AGENT_ENDED, ())
