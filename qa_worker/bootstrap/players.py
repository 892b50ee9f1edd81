"""Builds who plays the two sides of a scenario: what a process needs for it is made with its first use, once."""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from ipaddress import ip_network
from typing import Any

import httpx
from sqlalchemy import Engine

from qa_worker.adapters.agents.http import HttpAgent
from qa_worker.adapters.agents.model import ModelAgent, ModelCaller
from qa_worker.adapters.agents.openai import OpenAiAgent
from qa_worker.adapters.agents.python import PythonAgent
from qa_worker.adapters.agents.scripted import ScriptedAgent, ScriptedCaller
from qa_worker.adapters.agents.settings import text
from qa_worker.adapters.agents.web import AgentWeb
from qa_worker.adapters.eventloop import ChatOnLoop, EventLoop
from qa_worker.adapters.webhooks.guard import Guard
from qa_worker.adapters.webhooks.transport import GuardedTransport, deadline
from qa_worker.application.conversing import EFFORTS, ChatModel, GatedChatModel, Turned
from qa_worker.application.model_calls import ModelCalls
from qa_worker.application.playing import SECRET_PREFIX, AgentKind, AgentPlayer, CallerPlayer, PlayContext, Target
from qa_worker.bootstrap.clock import SystemClock
from qa_worker.bootstrap.gateway import budget, redis_url, shared_limits
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.scenario import Play
from qa_worker.settings import Settings

_NAMED = re.compile(r"\$\{([^}]*)\}")
_NO_LETTER = re.compile(r"[^A-Za-z0-9]")
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_CONNECT_S = 5.0
_LONGEST_READ_S = 600.0
_KEPT_ALIVE = 64
_NO_KEY = "Set ANTHROPIC_API_KEY"


def target_of(agent: AgentUnderTest, given: Target | None, *, has_key: bool) -> Target:
    """How an agent is reached whose file says nothing of it: by Claude where there is a key, or else by its script."""
    if given is not None:
        return given
    return Target(AgentKind.CLAUDE if has_key or agent.script is None else AgentKind.SCRIPTED)


class WorkerPlayers:
    """Implements the port `Players`. Threads share it."""

    def __init__(self, chosen: Settings, engine: Engine) -> None:
        self._chosen = chosen
        self._engine = engine
        self._lock = threading.Lock()
        self._closers: list[Callable[[], None]] = []

    def agent(self, context: PlayContext) -> AgentPlayer:
        """See the port. Raises InvalidInput where a setting of the target is wrong, or a key is missing."""
        settings = context.target.settings
        check_owners(settings, context.workspace_name)
        match context.target.kind:
            case AgentKind.SCRIPTED:
                return ScriptedAgent(context.agent.script)
            case AgentKind.CLAUDE:
                return ModelAgent(self._model("target.kind", "a key for Claude"), self._turned(context))
            case AgentKind.HTTP:
                return HttpAgent(settings, self._agent_web())
            case AgentKind.OPENAI:
                return OpenAiAgent(settings, self._agent_web())
            case AgentKind.PYTHON:
                return PythonAgent(settings, modules=self._chosen.agent_python_modules)

    def caller(self, context: PlayContext) -> CallerPlayer:
        """See the port. Free play without a key is played from the scenario's steps, where it has any."""
        scenario, chosen = context.scenario, self._chosen
        if scenario.play is Play.SCRIPT or (chosen.anthropic_api_key is None and scenario.steps):
            return ScriptedCaller()
        model = self._model("play", "a caller who speaks freely, which takes a key")
        return ModelCaller(model, Turned(chosen.caller_model, chosen.caller_effort, context.limits.max_reply_tokens))

    def close(self) -> None:
        """Give back what was opened."""
        with self._lock:
            for close in reversed(self._closers):
                close()
            self._closers.clear()
            for made in ("_chat", "_web"):
                self.__dict__.pop(made, None)

    def _turned(self, context: PlayContext) -> Turned:
        chosen, settings = self._chosen, context.target.settings
        effort = text(settings, "effort", example="low", default=chosen.agent_effort)
        if effort not in EFFORTS:
            raise InvalidInput("target.effort", "is no effort", f"Write one of {', '.join(EFFORTS)}")
        model = text(settings, "model", example="claude-haiku-5-5", default=chosen.agent_model)
        return Turned(model, effort, context.limits.max_reply_tokens)

    def _model(self, field: str, wanted: str) -> ChatModel:
        if self._chosen.anthropic_api_key is None:
            raise InvalidInput(field, f"asks for {wanted}, and there is none", f"{_NO_KEY}, or use scripts and steps")
        with self._lock:
            return self._chat

    def _agent_web(self) -> AgentWeb:
        with self._lock:
            return self._web

    @cached_property
    def _chat(self) -> ChatModel:
        # The SDK costs 1.5 s of CPU and 85 MB to import, which a process that never asks Claude need not pay.
        from qa_worker.adapters.claude.client import Timeouts  # noqa: PLC0415
        from qa_worker.adapters.claude.conversation import AsyncClaudeChat  # noqa: PLC0415

        chosen, key = self._chosen, self._chosen.anthropic_api_key
        if key is None:
            raise InvalidInput("ANTHROPIC_API_KEY", "is not set", _NO_KEY)
        claude = AsyncClaudeChat(
            key.get_secret_value(),
            now=SystemClock().now,
            base_url=chosen.anthropic_base_url,
            # a scenario may give a reply more time than a judge gets: its own deadline ends each request
            timeouts=Timeouts(connect_s=chosen.judge_connect_timeout_s, read_s=_LONGEST_READ_S),
        )
        gate, limiter = shared_limits(chosen, redis_url(chosen))
        calls = ModelCalls(
            budget=budget(chosen, self._engine),
            gate=gate,
            limiter=limiter,
            # what the leases of probes are made for: see `shared_limits`
            probe_within_s=chosen.judge_deadline_s,
        )
        loop = EventLoop()

        def close() -> None:
            loop.run(claude.aclose())
            loop.run(gate.close())
            loop.run(limiter.close())
            loop.close()

        self._closers.append(close)
        return ChatOnLoop(GatedChatModel(claude, calls), loop)

    @cached_property
    def _web(self) -> AgentWeb:
        networks = self._chosen.agent_allowed_networks
        # plain http carries words and secrets openly: within networks that ops know, and on this machine
        guard = Guard(allow_http=bool(networks), allowed=networks)
        loopback = Guard(allow_http=True, allowed=_LOOPBACK) if self._chosen.agent_allow_loopback else None
        # reading the roots takes a tenth of a second
        tls = httpx.create_ssl_context()
        web = AgentWeb(
            transport=_transport(guard, tls),
            loopback=_transport(loopback, tls) if loopback is not None else None,
            deadline=deadline,
            secret=secret,
        )
        self._closers.append(web.close)
        return web


def secret(name: str) -> str:
    """The value of an environment variable that a header names. Only those that are meant for agents are looked at.

    Raises InvalidInput: otherwise an agent's file could send the worker's own keys to whoever wrote it.
    """
    if not name.startswith(SECRET_PREFIX):
        raise InvalidInput(
            "headers", "names a variable that may not be sent", f"Let its name begin with {SECRET_PREFIX}"
        )
    value = os.environ.get(name, "")
    if not value:
        raise InvalidInput("headers", f"names {name}, which is not set", "Set it where the workers run")
    return value


def check_owners(settings: Mapping[str, Any], workspace: str) -> None:
    """A secret whose name begins with that of a workspace, and two underscores, is for agents of that workspace alone.

    Raises InvalidInput.
    """
    headers = settings.get("headers")
    for value in headers.values() if isinstance(headers, Mapping) else ():
        for name in _NAMED.findall(str(value)):
            owner, parted, _ = name.removeprefix(SECRET_PREFIX).partition("__")
            if parted and owner != _as_variable(workspace):
                problem = f"names {name}, which is another workspace's"
                raise InvalidInput(
                    "headers", problem, f"This one's begin with {SECRET_PREFIX}{_as_variable(workspace)}__"
                )


def _as_variable(workspace: str) -> str:
    return _NO_LETTER.sub("_", workspace).upper()


def _transport(guard: Guard, tls: ssl.SSLContext) -> httpx.BaseTransport:
    return GuardedTransport(guard, connect_timeout_s=_CONNECT_S, kept_alive=_KEPT_ALIVE, tls=tls)
