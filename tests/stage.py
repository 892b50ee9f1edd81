"""What tests of players are made of: a scenario, an agent with tools and mocks, the context of a run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qa_worker.application.playing import AgentKind, PlayContext, Target
from qa_worker.domain.agent_under_test import AgentUnderTest, Conversation, Reply, Script
from qa_worker.domain.call import Agent, ToolSpec, workspace_id
from qa_worker.domain.matching import ArgumentRule, Match
from qa_worker.domain.mocks import Answers, Mock, ToolMocks
from qa_worker.domain.scenario import Ends, Limits, Play, Scenario
from qa_worker.domain.transcript import Role, ToolCall, Turn

WORKSPACE = workspace_id("stage")
RUN_ID = uuid.UUID("5f0c6f0e-54a0-4a0e-8d3c-0d5f0a1b2c3d")
SCENARIO = Scenario(
    id="booking-plain",
    title="A table for two",
    agent="booking",
    play=Play.FREE,
    persona="Walter Hobbs, 81, courteous and slow.",
    goal="Book a table for two on Friday at six.",
    facts={"phone": "01725550163"},
    ends=Ends(tools=("create_booking",), when="You have heard the reference."),
)
AGENT = AgentUnderTest(
    Agent(
        id="booking",
        name="Booking line",
        version="7",
        instructions="You take table bookings.",
        tools=(
            ToolSpec(
                "create_booking", "Books a table.", {"type": "object", "properties": {"guests": {"type": "integer"}}}
            ),
            ToolSpec("end_call", "Hangs up."),
        ),
    ),
    greeting="Booking line, how can I help?",
    mocks=ToolMocks(
        {
            "create_booking": (
                Mock(Answers.FAILS, "no table of that size", when=(ArgumentRule("guests", Match.AT_LEAST, 8),)),
                Mock(Answers.TIMES_OUT, after_s=8.0, times=1),
                Mock(Answers.RETURNS, {"reference": "HT-5102"}, after_s=0.5),
            ),
            "end_call": (Mock(Answers.RETURNS, "ok"),),
        }
    ),
    script=Script(
        (
            Conversation(
                ("table for two",),
                (
                    Reply("For which day?"),
                    Reply("It's booked.", (ToolCall("create_booking", {"guests": 2}),)),
                    Reply("Goodbye.", ends=True),
                ),
            ),
        )
    ),
)


def a_context(
    kind: AgentKind = AgentKind.SCRIPTED,
    settings: Mapping[str, Any] | None = None,
    *,
    scenario: Scenario = SCENARIO,
    agent: AgentUnderTest = AGENT,
    reply_s: float = 30.0,
) -> PlayContext:
    """A run of the scenario against the agent."""
    limits: Limits = replace(scenario.limits, reply_s=reply_s, max_reply_tokens=900)
    return PlayContext(RUN_ID, WORKSPACE, scenario, agent, limits, Target(kind, settings or {}))


def said_by_agent(text: str, *calls: ToolCall) -> Turn:
    """A turn of the agent."""
    return Turn(Role.AGENT, text, tool_calls=calls)


def said_by_caller(text: str) -> Turn:
    """A turn of the caller."""
    return Turn(Role.CALLER, text)
