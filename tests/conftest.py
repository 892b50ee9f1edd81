"""Real PostgreSQL and a real Redis-protocol server for the whole session, started from wheels; a database for each
process of pytest-xdist, emptied after each test that asked for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, create_engine, make_url, text

from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.migrate import upgrade
from qa_worker.adapters.postgres.tables import metadata
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.embedded.stack import servers
from qa_worker.messages import Message

_SERVICES = pytest.StashKey[ExitStack]()
_DATABASE, _BROKER = "QA_TEST_DATABASE_URL", "QA_TEST_BROKER_URL"


def pytest_configure(config: pytest.Config) -> None:
    """Start the services once: in the process that the others of xdist are children of."""
    for name in ("DATABASE_URL", "BROKER_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"):
        # A developer's own services and key are nothing that a test may touch.
        os.environ.pop(name, None)
    if hasattr(config, "workerinput"):
        return
    services = ExitStack()
    home = Path(tempfile.mkdtemp(prefix="qa-tests-"))
    services.callback(shutil.rmtree, home, ignore_errors=True)
    database_url, broker_url = services.enter_context(servers(home, durable=False))
    upgrade(database_url)
    os.environ[_DATABASE], os.environ[_BROKER] = database_url, broker_url
    config.stash[_SERVICES] = services


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    services = config.stash.get(_SERVICES, None)
    if services is not None:
        services.close()


@pytest.fixture(scope="session")
def database_url(worker_id: str) -> str:
    """A migrated database of this process alone."""
    template = make_url(os.environ[_DATABASE])
    name = f"test_{worker_id}"
    server = create_engine(template.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template.database}"))
    server.dispose()
    return template.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def broker_url(worker_id: str) -> Iterator[str]:
    """An empty broker of this process alone."""
    number = int(worker_id.removeprefix("gw")) + 1 if worker_id.startswith("gw") else 15
    url = os.environ[_BROKER].rsplit("/", 1)[0] + f"/{number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture(scope="session")
def _engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, pool_size=8, pool_timeout_s=5, application_name="tests")
    yield made
    made.dispose()


@pytest.fixture
def engine(_engine: Engine) -> Iterator[Engine]:
    """An engine on an empty database."""
    yield _engine
    with _engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


class Outbox:
    """Collects the messages of committed units of work, in place of a broker."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, batch: object) -> None:
        """Keep them."""
        assert isinstance(batch, list)
        self.sent.extend(batch)


@pytest.fixture
def outbox() -> Outbox:
    """What was sent after commits."""
    return Outbox()


class UnitsOfWork:
    """Begins real transactions; implements the port `UnitOfWorkFactory`."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self.engine = engine
        self.send = outbox.send

    def __call__(self) -> PostgresUnitOfWork:
        return PostgresUnitOfWork(self.engine, send=self.send, prompt_version="test")


@pytest.fixture
def uow(engine: Engine, outbox: Outbox) -> UnitsOfWork:
    """Real transactions on an empty database."""
    return UnitsOfWork(engine, outbox)
