from __future__ import annotations

from qa_worker.domain.agent_under_test import AgentUnderTest, Conversation, Reply, Script, unknown_tools
from qa_worker.domain.call import Agent, Expected, ToolSpec
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Play, Scenario, ToolRule
from qa_worker.domain.transcript import ToolCall

LOST = Reply("I don't understand.")
SCRIPT = Script(
    (
        Conversation(("table for two",), (Reply("When?"), Reply("Booked.", ends=True))),
        Conversation(("table", "book"), (Reply("For how many?"),)),
    ),
    LOST,
)


def test_the_first_turn_of_the_caller_chooses_the_conversation() -> None:
    assert SCRIPT.reply(["A TABLE for two, please!"]).text == "When?"
    assert SCRIPT.reply(["I want to book."]).text == "For how many?"
    assert SCRIPT.reply(["A table [the caller was silent for 2 seconds] for two."]).text == "When?"
    assert SCRIPT.reply(["A table for two, please!", "Something about a book"]).text == "Booked."


def test_an_agent_at_its_wits_end_says_so() -> None:
    assert SCRIPT.reply(["Notebook"]) == LOST
    assert SCRIPT.reply([]) == LOST
    assert SCRIPT.reply(["I want to book.", "Two.", "Hello?"]) == LOST
    assert Script().reply(["Hello"]).text


def test_tools_that_a_scenario_names_and_the_agent_lacks_are_found_once() -> None:
    scenario = Scenario(
        id="s",
        title="S",
        agent="a",
        play=Play.SCRIPT,
        ends=Ends(tools=("book", "bok")),
        expected=ExpectedOutcome(
            call=Expected(required_tools=("book",), forbidden_tools=("cancl",)),
            required=(ToolRule("bok"),),
            forbidden=(ToolRule("cancel"),),
        ),
    )
    agent = Agent("a", tools=(ToolSpec("book"), ToolSpec("cancel")))

    assert unknown_tools(scenario, agent) == ("cancl", "bok")


def test_a_tool_that_the_agent_does_not_have_is_its_own_fault_and_one_without_mocks_is_the_tests() -> None:
    agent = AgentUnderTest(Agent("a", tools=(ToolSpec("book"), ToolSpec("end_call"))))

    unknown, unmocked = (agent.answer(ToolCall(name, {}), earlier=()) for name in ("bok", "book"))

    assert (unknown.is_error, unknown.matched) == (True, True)
    assert (unmocked.is_error, unmocked.matched) == (True, False)
    assert agent.unmocked == ("book",)
    assert not agent.answer(ToolCall("end_call", {}), earlier=()).is_error
