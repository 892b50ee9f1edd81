"""One transaction. Nothing is true before `commit`, and messages leave after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Connection, Engine

from qa_worker.adapters.postgres.alert_rules import PostgresAlertRules, RuleBook
from qa_worker.adapters.postgres.alerts import PostgresAlerts
from qa_worker.adapters.postgres.backlog import PostgresBacklog
from qa_worker.adapters.postgres.batches import PostgresBatches
from qa_worker.adapters.postgres.calls import PostgresCalls
from qa_worker.adapters.postgres.deliveries import PostgresDeliveries
from qa_worker.adapters.postgres.endpoints import PostgresEndpoints
from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.evaluations import PostgresEvaluations
from qa_worker.adapters.postgres.expenses import Expenses
from qa_worker.adapters.postgres.incidents import PostgresIncidents
from qa_worker.adapters.postgres.letters import PostgresDeadLetters
from qa_worker.adapters.postgres.rubrics import PostgresRubrics
from qa_worker.adapters.postgres.runs import PostgresRuns
from qa_worker.adapters.postgres.suites import PostgresSuites
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.messages import Message

log = structlog.get_logger(__name__)

Send = Callable[[Sequence[Message]], object]


class PostgresUnitOfWork:
    """Implements the port `UnitOfWork`. Enter it once. Without a `book` of rules they are read in every transaction."""

    calls: PostgresCalls
    rubrics: PostgresRubrics
    evaluations: PostgresEvaluations
    alert_rules: PostgresAlertRules
    alerts: PostgresAlerts
    incidents: PostgresIncidents
    endpoints: PostgresEndpoints
    deliveries: PostgresDeliveries
    dead_letters: PostgresDeadLetters
    backlog: PostgresBacklog
    batches: PostgresBatches
    runs: PostgresRuns
    suites: PostgresSuites
    _expenses: Expenses

    def __init__(self, engine: Engine, *, send: Send, prompt_version: str, book: RuleBook | None = None) -> None:
        self._engine = engine
        self._send = send
        self._prompt_version = prompt_version
        self._book = book or RuleBook(fresh_s=0)
        self._connection: Connection | None = None
        self._messages: list[Message] = []

    def __enter__(self) -> Self:
        with store_errors():
            self._connection = self._engine.connect()
        self.calls = PostgresCalls(self._connection)
        self.rubrics = PostgresRubrics(self._connection, prompt_version=self._prompt_version)
        self._expenses = Expenses(self._connection)
        self.evaluations = PostgresEvaluations(self._connection, self._expenses)
        self.alert_rules = PostgresAlertRules(self._connection, book=self._book)
        self.alerts = PostgresAlerts(self._connection, book=self._book)
        self.incidents = PostgresIncidents(self._connection)
        self.endpoints = PostgresEndpoints(self._connection)
        self.deliveries = PostgresDeliveries(self._connection)
        self.dead_letters = PostgresDeadLetters(self._connection)
        self.backlog = PostgresBacklog(self._connection)
        self.batches = PostgresBatches(self._connection, self.evaluations)
        self.runs = PostgresRuns(self._connection, self._expenses)
        self.suites = PostgresSuites(self._connection)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        connection, self._connection = self._connection, None
        with store_errors():
            if connection is not None:
                connection.close()
            if value is not None and not isinstance(value, StoreUnavailable):
                raise value

    def nudge(self, message: Message) -> None:
        """See the port."""
        self._messages.append(message)

    def commit(self) -> None:
        """See the port."""
        if self._connection is None:
            raise RuntimeError("a unit of work commits inside its block")
        with store_errors():
            self.evaluations.flush()
            self.alerts.flush()
            self._expenses.flush()
        connection, self._connection = self._connection, None
        with store_errors(), connection:
            connection.commit()
        # The connection is back in the pool by now: a slow broker holds none.
        leaving, self._messages = self._messages, []
        if not leaving:
            return
        try:
            self._send(leaving)
        except StoreUnavailable:
            log.warning("nudges_not_sent", count=len(leaving))
