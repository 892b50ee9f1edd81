"""What a command needs to hand over calls and to look at results."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property

from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.migrate import revisions, upgrade
from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.stored_calls import stored_call
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.application.limits import Spending
from qa_worker.application.ports import Grading, NamedRubric, Wanted
from qa_worker.application.queries import Backlog as ToDo
from qa_worker.application.queries import Queries
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.bootstrap.alert_client import AlertClient
from qa_worker.bootstrap.backlog import Backlog
from qa_worker.bootstrap.gateway import GatewayStatus, budget, gateway_status
from qa_worker.bootstrap.grading import grading, judge_kind
from qa_worker.bootstrap.scenarios import Suites
from qa_worker.domain.call import Call, CallId
from qa_worker.domain.errors import CallConflict
from qa_worker.domain.prompt import PROMPT_VERSION
from qa_worker.domain.rubric import JudgeKind
from qa_worker.settings import Settings, settings


class Client:
    """What a command needs to hand over calls and to look at results, with one connection pool."""

    def __init__(
        self,
        *,
        database_url: str | None = None,
        broker_url: str | None = None,
        secret_keys: str | None = None,
        changes: Mapping[str, object] | None = None,
    ) -> None:
        """Without URLs those of the settings hold, and without `secret_keys`, which the settings go before, theirs.

        `changes` are settings by their variables' names that differ from the environment's.
        """
        self._settings = Settings.model_validate(changes) if changes else settings()
        self._secret_keys = secret_keys
        given = Settings.model_validate({"DATABASE_URL": database_url}) if database_url else self._settings
        self._database_url = given.database_url.get_secret_value()
        self._broker_url = broker_url or self._settings.broker_url.get_secret_value()
        self._publisher = Publisher(self._broker_url)
        self._engine = make_engine(
            self._database_url,
            pool_size=min(2, self._settings.db_pool_size),
            pool_timeout_s=self._settings.db_pool_timeout_s,
            application_name="qa-worker",
        )

    @property
    def judge(self) -> JudgeKind:
        """The judge that calls get where nobody chooses one."""
        return judge_kind(self._settings)

    @cached_property
    def queries(self) -> Queries:
        """The read side."""
        return PostgresQueries(self._engine)

    @cached_property
    def backlog(self) -> Backlog:
        """Calls that are graded later, batches, and verdicts that changed."""
        return Backlog(self._settings, self._engine, self._uow, self._grading)

    @cached_property
    def suites(self) -> Suites:
        """Suites of scenarios: begun, watched, cancelled, reported."""
        return Suites(self._settings, self._engine, self._uow, broker_url=self._broker_url)

    @cached_property
    def alerts(self) -> AlertClient:
        """Endpoints, rules, alerts and dead letters."""
        return AlertClient(self._settings, self._engine, self._uow, self._publisher, secret_keys=self._secret_keys)

    @cached_property
    def _grading(self) -> Grading:
        return grading(self._settings)

    def submit(
        self,
        calls: Sequence[Call],
        *,
        workspace: str,
        wanted: Wanted,
    ) -> tuple[Accepted | CallConflict, ...]:
        """Hand calls over; see `submit_calls`."""
        return submit_calls(
            calls,
            workspace_name=workspace,
            uow=self._uow,
            grading=self._grading,
            in_flight_limit=self._settings.in_flight_limit,
            wanted=wanted,
        )

    def call(self, call_id: uuid.UUID) -> Call | None:
        """A call as it was handed over; None where nobody knows it. Raises StoreUnavailable."""
        return stored_call(self._engine, call_id)

    def set_default_rubric(self, rubric: NamedRubric, *, workspace: str, agent: str | None) -> None:
        """Make this the rubric of a workspace or of one of its agents. Raises LookupError: no such agent."""
        with self._uow() as work:
            work.rubrics.set_default(workspace, rubric, agent_ref=agent)
            work.commit()

    def revisions(self) -> tuple[str | None, str | None]:
        """(the database's migration, the newest one known). Raises StoreUnavailable."""
        return revisions(self._engine, self._database_url)

    def retry(self, call_ids: Sequence[CallId]) -> int:
        """Let evaluations of these calls (of all calls, where none is named) begin anew; returns how many.

        Those that were given up on; and of named calls those, too, whose answers could not be read.
        """
        with self._uow() as work:
            revived = work.evaluations.revive(call_ids)
            work.commit()
        return len(revived)

    def upgrade(self) -> None:
        """Bring the schema up to date. Raises StoreUnavailable."""
        upgrade(self._database_url)

    def close(self) -> None:
        """Give all connections back."""
        if "alerts" in self.__dict__:
            self.alerts.close()
        self._publisher.close()
        self._engine.dispose()

    def _uow(self) -> PostgresUnitOfWork:
        return PostgresUnitOfWork(self._engine, send=self._publisher.send, prompt_version=PROMPT_VERSION)

    def to_do(self) -> ToDo:
        """How much there is to do, and what it waits for. Raises StoreUnavailable."""
        return self.queries.backlog(budget(self._settings, self._engine).left())

    def spending(self) -> tuple[Spending, ...]:
        """What was spent today, overall and by workspace. Raises StoreUnavailable."""
        return budget(self._settings, self._engine).spending()

    def set_budget(self, workspace: str, micro_usd: int | None) -> None:
        """Cap what a workspace may spend in a day (UTC); None takes the cap away. Raises StoreUnavailable."""
        budget(self._settings, self._engine).set_cap(workspace, micro_usd)

    def set_overall_budget(self, micro_usd: int | None) -> None:
        """Cap what all workspaces together may spend in a day (UTC); None: the settings say. Raises StoreUnavailable."""
        budget(self._settings, self._engine).set_overall_cap(micro_usd)

    def gateway(self) -> GatewayStatus:
        """What holds requests to Claude back right now, for every model that is used. Raises StoreUnavailable."""
        chosen = self._settings
        models = {chosen.judge_model, chosen.caller_model, chosen.agent_model, *self.queries.models()}
        return gateway_status(chosen, self._broker_url, sorted(models))
