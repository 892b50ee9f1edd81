"""Who plays the two sides, by kind and by key; and that what a worker is built of plays a whole conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from qa_worker.adapters.agents.http import HttpAgent
from qa_worker.adapters.agents.model import ModelAgent, ModelCaller
from qa_worker.adapters.agents.openai import OpenAiAgent
from qa_worker.adapters.agents.scripted import ScriptedAgent, ScriptedCaller
from qa_worker.application.playing import AgentKind, AgentReply, CallerReply, Target
from qa_worker.bootstrap.players import WorkerPlayers, secret, target_of
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.scenario import Play
from qa_worker.settings import Settings
from tests.servers.agent_endpoint import AgentEndpoint
from tests.servers.behaviours import Hang, overloaded, rate_limited
from tests.servers.messages_api import MessagesServer
from tests.servers.talking import uses, words
from tests.stage import AGENT, SCENARIO, a_context, said_by_agent

Make = Callable[..., WorkerPlayers]


@pytest.fixture
def make() -> Iterator[Make]:
    """Players of a worker with these settings, closed at the end."""
    made: list[WorkerPlayers] = []
    nowhere = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")

    def players(*, database: Engine = nowhere, **given: Any) -> WorkerPlayers:
        made.append(WorkerPlayers(Settings.model_validate(given), database))
        return made[-1]

    yield players
    for one in made:
        one.close()


def test_each_kind_has_its_player(make: Make) -> None:
    players = make(anthropic_api_key="sk-test")
    http = {"url": "http://127.0.0.1:1/", "model": "m"}

    kinds: dict[AgentKind, type] = {
        AgentKind.SCRIPTED: ScriptedAgent,
        AgentKind.CLAUDE: ModelAgent,
        AgentKind.HTTP: HttpAgent,
        AgentKind.OPENAI: OpenAiAgent,
    }
    for kind, player in kinds.items():
        settings = http if kind in {AgentKind.HTTP, AgentKind.OPENAI} else {}
        assert isinstance(players.agent(a_context(kind, settings)), player)


def test_without_a_key_an_agent_cannot_be_played_by_claude(make: Make) -> None:
    with pytest.raises(InvalidInput, match="Set ANTHROPIC_API_KEY"):
        make().agent(a_context(AgentKind.CLAUDE))


def test_a_python_agent_is_run_only_where_ops_allow_it(make: Make) -> None:
    context = a_context(AgentKind.PYTHON, {"call": "tests.adapters.agents.test_python:says"})

    reply = make(QA_AGENT_PYTHON_MODULES="lab, tests.adapters").agent(context).reply(context, (), "Hello")

    assert isinstance(reply, AgentReply)
    with pytest.raises(InvalidInput, match="may not be run"):
        make().agent(context)


def test_an_effort_that_is_none_is_refused(make: Make) -> None:
    with pytest.raises(InvalidInput, match=r"target\.effort: is no effort"):
        make(anthropic_api_key="sk-test").agent(a_context(AgentKind.CLAUDE, {"effort": "huge"}))


def test_fixed_lines_are_said_whether_there_is_a_key_or_not(make: Make) -> None:
    context = a_context(scenario=replace(SCENARIO, play=Play.SCRIPT, steps=("Hello.",)))

    assert isinstance(make().caller(context), ScriptedCaller)
    assert isinstance(make(anthropic_api_key="sk-test").caller(context), ScriptedCaller)


def test_free_play_takes_a_key_or_steps(make: Make) -> None:
    with_steps = a_context(scenario=replace(SCENARIO, steps=("Hello.",)))

    assert isinstance(make(anthropic_api_key="sk-test").caller(with_steps), ModelCaller)
    assert isinstance(make().caller(with_steps), ScriptedCaller)
    with pytest.raises(InvalidInput, match="play: asks for a caller who speaks freely"):
        make().caller(a_context())


def test_where_the_file_is_silent_claude_plays_where_there_is_a_key() -> None:
    asked = Target(AgentKind.HTTP, {"url": "https://a.example/"})

    assert target_of(AGENT, None, has_key=True).kind is AgentKind.CLAUDE
    assert target_of(AGENT, None, has_key=False).kind is AgentKind.SCRIPTED
    assert target_of(replace(AGENT, script=None), None, has_key=False).kind is AgentKind.CLAUDE
    assert target_of(AGENT, asked, has_key=True) is asked


def test_only_secrets_for_agents_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QA_AGENT_SECRET_BOOKING", "s3cret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ours")

    assert secret("QA_AGENT_SECRET_BOOKING") == "s3cret"
    with pytest.raises(InvalidInput, match="QA_AGENT_SECRET_OTHER, which is not set"):
        secret("QA_AGENT_SECRET_OTHER")
    with pytest.raises(InvalidInput, match="may not be sent"):
        secret("ANTHROPIC_API_KEY")


def test_a_secret_of_a_workspace_is_for_its_agents_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QA_AGENT_SECRET_ACME_EU__BOOKING", "s3cret")
    headers = {"authorization": "Bearer ${QA_AGENT_SECRET_ACME_EU__BOOKING}"}
    context = a_context(AgentKind.HTTP, {"url": "https://a.example/", "headers": headers})

    assert isinstance(make().agent(replace(context, workspace_name="acme-eu")), HttpAgent)
    for other in ("acme", "default", ""):
        with pytest.raises(InvalidInput, match="another workspace's"):
            make().agent(replace(context, workspace_name=other))


def test_an_agent_on_this_machine_is_reached_unless_ops_close_it(make: Make) -> None:
    with AgentEndpoint() as server:
        context = a_context(AgentKind.HTTP, {"url": server.url})
        open_, closed = make(), make(QA_AGENT_ALLOW_LOOPBACK="false")

        assert isinstance(open_.agent(context).reply(context, (), "Hello?"), AgentReply)
        assert isinstance(closed.agent(context).reply(context, (), "Hello?"), Failure)


def test_plain_http_is_for_networks_that_ops_name(make: Make) -> None:
    with AgentEndpoint() as server:
        context = a_context(AgentKind.HTTP, {"url": server.url})
        players = make(QA_AGENT_ALLOW_LOOPBACK="false", QA_AGENT_ALLOWED_NETWORKS="127.0.0.0/8")

        assert isinstance(players.agent(context).reply(context, (), "Hello?"), AgentReply)


@pytest.mark.services
def test_caller_and_agent_talk_through_the_gateway(make: Make, engine: Engine, broker_url: str) -> None:
    with MessagesServer() as server:
        players = make(
            database=engine, anthropic_api_key="sk-test", anthropic_base_url=server.url, redis_url=broker_url
        )
        context = a_context(AgentKind.CLAUDE)
        greeting = said_by_agent(AGENT.greeting)
        server.enqueue(words("A table for two."), uses(("create_booking", {"guests": 2})), words("It's booked."))

        line = players.caller(context).line(context, (greeting,), 0)
        assert isinstance(line, CallerReply)
        reply = players.agent(context).reply(context, (greeting,), line.line)

        assert isinstance(reply, AgentReply)
        assert (line.line, reply.turns[-1].text) == ("A table for two.", "It's booked.")
        assert {sent.body["model"] for sent in server.requests} == {"claude-haiku-5-5"}


@pytest.mark.services
def test_a_429_to_the_agent_holds_the_caller_back_too(make: Make, engine: Engine, broker_url: str) -> None:
    with MessagesServer() as server:
        players = make(
            database=engine, anthropic_api_key="sk-test", anthropic_base_url=server.url, redis_url=broker_url
        )
        context = a_context(AgentKind.CLAUDE)
        server.enqueue(rate_limited("30"))

        limited = players.agent(context).reply(context, (), "Hello?")
        held = players.caller(context).line(context, (), 0)

        assert isinstance(limited, Failure)
        assert isinstance(held, Failure)
        assert (limited.kind, held.kind) == (FailureKind.RATE_LIMITED, FailureKind.HELD)
        assert len(server.requests) == 1


@pytest.mark.services
def test_a_probe_ends_before_its_lease_though_a_reply_may_take_longer(
    make: Make, engine: Engine, broker_url: str
) -> None:
    with MessagesServer() as server:
        players = make(
            database=engine,
            anthropic_api_key="sk-test",
            anthropic_base_url=server.url,
            redis_url=broker_url,
            judge_deadline_s=0.1,
            breaker_threshold=1,
            breaker_recovery_s=0.05,
        )
        context = a_context(AgentKind.CLAUDE)
        server.enqueue(overloaded(), Hang())

        codes: list[str] = []
        while not codes or codes[-1] in {"http_529", "breaker_open", "limit_used_up"}:
            answer = players.caller(context).line(context, (), 0)
            assert isinstance(answer, Failure)
            codes.append(answer.code)

        assert (codes[0], codes[-1]) == ("http_529", "deadline")
        assert len(server.requests) == 2
