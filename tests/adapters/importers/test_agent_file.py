from __future__ import annotations

from typing import Any

import pytest
import yaml

from qa_worker.adapters.importers.agent_file import agent_problems, parse_agent
from qa_worker.domain.agent_under_test import AgentUnderTest, Conversation, Reply, Script
from qa_worker.domain.call import Agent, ToolSpec
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.mocks import Answers, Mock, ToolMocks
from qa_worker.domain.transcript import ToolCall


def a_file(**changes: Any) -> str:
    return yaml.safe_dump({"id": "booking", "tools": [{"name": "book"}]} | changes)


def a_mock(**fields: Any) -> str:
    return a_file(tools=[{"name": "book", "mocks": [fields]}])


def refused(text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_agent(text, source="a.yaml")
    assert caught.value.fix
    assert caught.value.line is not None
    return caught.value


def test_a_full_file_is_read_as_it_stands() -> None:
    text = a_file(
        name="Booking line",
        version="7",
        greeting="Hello.",
        instructions="Be polite.\n",
        tools=[
            {
                "name": "book",
                "description": "Books.",
                "parameters": {"type": "object"},
                "mocks": [
                    {"when": {"guests": {"at_least": 8}}, "fails": "too many", "after_s": 2},
                    {"times_out": True, "times": 1},
                    {"malformed": "<html>"},
                    {"returns": None},
                ],
            },
            {"name": "find"},
        ],
        script={
            "otherwise": "Sorry?",
            "conversations": [
                {
                    "begins": ["a table"],
                    "replies": [
                        "When?",
                        {"say": "Done.", "calls": [{"tool": "book", "arguments": {"n": 2}}], "ends": True},
                    ],
                }
            ],
        },
    )

    assert parse_agent(text, source="a.yaml") == AgentUnderTest(
        agent=Agent(
            "booking",
            "Booking line",
            "7",
            "Be polite.",
            (ToolSpec("book", "Books.", {"type": "object"}), ToolSpec("find")),
        ),
        greeting="Hello.",
        mocks=ToolMocks(
            {
                "book": (
                    Mock(Answers.FAILS, "too many", (ArgumentRule("guests", Match.AT_LEAST, 8),), 2.0),
                    Mock(Answers.TIMES_OUT, times=1),
                    Mock(Answers.MALFORMED, "<html>"),
                    Mock(Answers.RETURNS, None),
                )
            }
        ),
        script=Script(
            (Conversation(("a table",), (Reply("When?"), Reply("Done.", (ToolCall("book", {"n": 2}),), ends=True))),),
            Reply("Sorry?"),
        ),
    )


def test_an_id_is_enough() -> None:
    assert parse_agent("id: booking\n", source="a.yaml") == AgentUnderTest(Agent("booking"))


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("name: x\n", "id", "is missing"),
        (a_file(version=7), "version", "must be a text"),
        (a_file(prompt="x"), "prompt", "is not a field"),
        (a_file(tools=[{"name": "a"}, {"name": "a"}]), "tools", 'has "a" twice'),
        (a_mock(when={}), "tools[0].mocks[0]", "says no answer"),
        (a_mock(returns=1, fails="x"), "tools[0].mocks[0]", "has returns and fails"),
        (a_mock(times_out=False), "tools[0].mocks[0].times_out", "is false"),
        (a_mock(returns=1, after_s=-1), "tools[0].mocks[0].after_s", "from 0 to 600"),
        (a_mock(returns=1, times=0), "tools[0].mocks[0].times", "is 0"),
        (a_mock(returns=1, when={"n": {"about": 3}}), "tools[0].mocks[0].when.n", "no way to compare"),
        (a_file(script={"conversations": [{"replies": []}]}), "script.conversations[0].begins", "is missing"),
        (
            a_file(script={"conversations": [{"begins": ["x"], "replies": ["a", {"calls": [{"tool": "cancel"}]}]}]}),
            "script.conversations[0].replies[1].calls",
            'names "cancel", which is no tool',
        ),
    ],
)
def test_a_wrong_field_is_named(text: str, field: str, words: str) -> None:
    error = refused(text)

    assert error.field == field
    assert words in error.problem


def test_every_fault_of_an_agents_file_is_told() -> None:
    text = """\
id: booking
version: 7
tools:
  - name: book
    mocks: [{fails: full, returns: ok}]
target: {kind: http, url: "ftp://a.example/"}
script:
  conversations:
    - begins: [a table]
      replies: [{calls: [{tool: book, args: {}}]}]
"""

    found = agent_problems(text, source="a.yaml")

    assert [(fault.line, fault.field) for fault in found] == [
        (2, "version"),
        (5, "tools[0].mocks[0]"),
        (10, "script.conversations[0].replies[0].calls[0].args"),
        (6, "target.url"),
    ]
    assert found[2].fix == "Did you mean `arguments`?"
    assert agent_problems("id: booking\n", source="a.yaml") == ()
