"""A planted regression: a sample agent whose next version has forgotten a tool."""

from __future__ import annotations

from dataclasses import replace

from qa_worker.domain.agent_under_test import AgentUnderTest, Reply


def forgets_tool(agent: AgentUnderTest, tool: str, *, version: str) -> AgentUnderTest:
    """The same agent as `version`, whose script says all it said and never calls `tool`."""
    if agent.script is None:
        raise ValueError(f"{agent.agent.id} has no script")
    talks = tuple(
        replace(talk, replies=tuple(_without(reply, tool) for reply in talk.replies))
        for talk in agent.script.conversations
    )
    return replace(
        agent, agent=replace(agent.agent, version=version), script=replace(agent.script, conversations=talks)
    )


def _without(reply: Reply, tool: str) -> Reply:
    return replace(reply, calls=tuple(call for call in reply.calls if call.name != tool))
