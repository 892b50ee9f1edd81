"""A worker fleet for each test, the local Messages API beside it, and a producer's client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from qa_worker import bootstrap
from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application.ports import Wanted
from qa_worker.application.queries import EvaluationView
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.call import Call
from qa_worker.domain.rubric import JudgeKind
from tests.e2e.workers import Workers, eventually, workers
from tests.servers.buckets import Limits
from tests.servers.messages_api import MessagesServer


@pytest.fixture
def api() -> Iterator[MessagesServer]:
    """The local Messages API, with limits that no test reaches."""
    with MessagesServer(limits=Limits(requests=100_000, input_tokens=10**9, output_tokens=10**9)) as server:
        yield server


@dataclass
class System:
    """Workers, a client, the API that they ask."""

    workers: Workers
    client: bootstrap.Client
    api: MessagesServer
    engine: Engine

    def submit(self, *calls: Call, judge: JudgeKind = JudgeKind.CLAUDE) -> list[Accepted]:
        """Hand calls over through the real producer."""
        answers = self.client.submit(calls, workspace="default", wanted=Wanted(judge=judge))
        return [answer for answer in answers if isinstance(answer, Accepted)]

    def states(self) -> list[str]:
        """The state of every evaluation."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(evaluations.c.state)).scalars())

    def done(self, accepted: list[Accepted], *, within_s: float = 60.0) -> list[EvaluationView]:
        """The views of evaluations, when all of them are final."""
        ids = [answer.evaluation_id for answer in accepted]

        def final() -> bool:
            states = self.client.queries.progress(ids)
            return len(states) == len(ids) and all(one.state.value in ("done", "dead") or one.blocked for one in states)

        eventually(final, what="every evaluation is final", within_s=within_s)
        return list(self.client.queries.evaluations(ids))


@pytest.fixture
def system(database_url: str, broker_url: str, engine: Engine, api: MessagesServer, tmp_path: Path) -> Iterator[System]:
    """A fleet that has not been started yet."""
    extra = {"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": api.url}
    client = bootstrap.Client(database_url=database_url, broker_url=broker_url)
    with workers(database_url=database_url, broker_url=broker_url, folder=tmp_path, extra=extra) as fleet:
        yield System(fleet, client, api, engine)
    client.close()
