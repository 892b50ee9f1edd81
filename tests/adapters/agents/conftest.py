"""The way to local endpoints: the same guards as in a worker."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_network

import httpx
import pytest

from qa_worker.adapters.agents.web import AgentWeb
from qa_worker.adapters.webhooks.guard import Guard, Resolver, system_resolver
from qa_worker.adapters.webhooks.transport import GuardedTransport, deadline
from qa_worker.domain.errors import InvalidInput

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SECRETS = {"QA_AGENT_SECRET_KEY": "s3cret"}


@cache
def _tls() -> ssl.SSLContext:
    # reading the roots takes a tenth of a second
    return httpx.create_ssl_context()


def secret(name: str) -> str:
    """A secret that a test knows."""
    if name not in SECRETS:
        raise InvalidInput("headers", f"names {name}, which is not set", "Set it")
    return SECRETS[name]


def a_web(*, loopback: bool = True, resolver: Resolver = system_resolver) -> AgentWeb:
    """The client of a process; `resolver` stands in for the name server."""

    def transport(guard: Guard) -> httpx.BaseTransport:
        return GuardedTransport(guard, connect_timeout_s=2, kept_alive=4, tls=_tls())

    return AgentWeb(
        transport=transport(Guard(resolver=resolver)),
        loopback=transport(Guard(allow_http=True, allowed=LOOPBACK, resolver=resolver)) if loopback else None,
        deadline=deadline,
        secret=secret,
    )


@pytest.fixture
def web() -> Iterator[AgentWeb]:
    """A client that may go to this machine where the URL says so."""
    made = a_web()
    yield made
    made.close()


@pytest.fixture
def make_web() -> Iterator[Callable[..., AgentWeb]]:
    """Clients of other kinds, closed at the end."""
    made: list[AgentWeb] = []

    def make(*, loopback: bool = True, resolver: Resolver = system_resolver) -> AgentWeb:
        made.append(a_web(loopback=loopback, resolver=resolver))
        return made[-1]

    yield make
    for web in made:
        web.close()
