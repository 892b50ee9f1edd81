"""Builds what plays scenarios and keeps suites going, and what a command needs to start, watch and cancel them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import Engine

from qa_worker.adapters.postgres.leases import LeaseKeeper
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.suite_queries import PostgresSuiteQueries
from qa_worker.adapters.postgres.tables import runs
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.adapters.redis.progress import RedisProgress
from qa_worker.application._grading import Tools
from qa_worker.application._run_record import RunTools, SuiteTools
from qa_worker.application.ports import Rescued, UnitOfWorkFactory
from qa_worker.application.run_scenario import run_scenario
from qa_worker.application.run_suite import cancel_run, cancel_suite, dispatch_runs, rescue_runs, start_suite
from qa_worker.application.running import ProgressEvent, RunView, SuiteLine, SuiteProgress, WantedSuite
from qa_worker.application.watch_suite import watch_suite
from qa_worker.bootstrap.clock import SystemClock
from qa_worker.bootstrap.gateway import budget, redis_url
from qa_worker.bootstrap.grading import default_rubric, run_retry_policy
from qa_worker.bootstrap.players import WorkerPlayers
from qa_worker.domain.outcome import Outcome
from qa_worker.domain.playback import PlayedTurn
from qa_worker.domain.suite import SuiteResult
from qa_worker.settings import Settings


class ScenarioJobs:
    """What the tasks about runs call."""

    def __init__(self, chosen: Settings, engine: Engine, grading: Tools, publisher: Publisher) -> None:
        self._players = WorkerPlayers(chosen, engine)
        self._left = budget(chosen, engine).left
        self._leases = LeaseKeeper(engine, lease_s=chosen.lease_s, table=runs)
        self._progress = RedisProgress(redis_url(chosen))
        self._resend_after_s = chosen.resend_after_s
        self._publisher = publisher
        self._tools = RunTools(
            suites=SuiteTools(grading.uow, grading.clock, chosen.run_in_flight_limit),
            grading=grading,
            players=self._players,
            leases=self._leases,
            settling=DirectRecords(grading.uow, patience_s=chosen.lease_s),
            progress=self._progress,
            sleep=time.sleep,
            policy=run_retry_policy(chosen),
            deadline_s=chosen.run_deadline_s,
            caller_retries=chosen.caller_retries,
        )

    def play(self, run_id: uuid.UUID) -> Outcome:
        """See `run_scenario`."""
        return run_scenario(run_id=run_id, tools=self._tools)

    def dispatch(self) -> int:
        """See `dispatch_runs`."""
        return dispatch_runs(tools=self._tools.suites, left=self._left)

    def rescue(self) -> Rescued:
        """See `rescue_runs`."""
        return rescue_runs(
            tools=self._tools.suites, resend_after_s=self._resend_after_s, waiting=self._publisher.waiting_runs
        )

    def close(self) -> None:
        """Give the connections back."""
        self._leases.close()
        self._progress.close()
        self._players.close()


class Suites:
    """What the commands about scenarios call."""

    def __init__(
        self, chosen: Settings, engine: Engine, uow: UnitOfWorkFactory, *, broker_url: str | None = None
    ) -> None:
        self._max_attempts = chosen.max_attempts
        self._tools = SuiteTools(uow, SystemClock(), chosen.run_in_flight_limit)
        self._queries = PostgresSuiteQueries(engine)
        self._feed = RedisProgress(redis_url(chosen, broker_url))

    def start(self, wanted: WantedSuite, *, workspace: str) -> uuid.UUID:
        """Begin a suite run; see `start_suite`. Raises InvalidInput, StoreUnavailable."""
        return start_suite(
            wanted,
            workspace_name=workspace,
            max_attempts=self._max_attempts,
            tools=self._tools,
            own_rubric=default_rubric().rubric.name,
        )

    def watch(self, suite_run_id: uuid.UUID, *, workspace: str) -> Iterator[SuiteProgress | ProgressEvent]:
        """See `watch_suite`. Raises LookupError, StoreUnavailable."""
        return watch_suite(suite_run_id=suite_run_id, workspace_name=workspace, queries=self._queries, feed=self._feed)

    def cancel(self, suite_run_id: uuid.UUID, *, workspace: str) -> bool:
        """See `cancel_suite`. Raises StoreUnavailable."""
        return cancel_suite(suite_run_id=suite_run_id, workspace_name=workspace, tools=self._tools)

    def cancel_run(self, run_id: uuid.UUID, *, workspace: str) -> bool:
        """See `cancel_run`. Raises StoreUnavailable."""
        return cancel_run(run_id=run_id, workspace_name=workspace, tools=self._tools)

    def result(self, suite_run_id: uuid.UUID, *, workspace: str) -> SuiteResult | None:
        """All its runs, with scores and findings; None where the workspace has none such. Raises StoreUnavailable."""
        return self._queries.result(suite_run_id, workspace_name=workspace)

    def recent(self, workspace: str, *, limit: int = 20) -> Sequence[SuiteLine]:
        """The latest suite runs of a workspace. Raises StoreUnavailable."""
        return self._queries.recent(workspace, limit=limit)

    def run(self, run_id: uuid.UUID, *, workspace: str) -> RunView | None:
        """One run and its conversation; None where the workspace has none such. Raises StoreUnavailable."""
        return self._queries.run(run_id, workspace_name=workspace)

    def runs_beginning(self, beginning: str, *, workspace: str, limit: int) -> Sequence[uuid.UUID]:
        """The runs whose ids begin so. Raises StoreUnavailable."""
        return self._queries.runs_beginning(beginning, workspace_name=workspace, limit=limit)

    def turns(self, run_id: uuid.UUID, *, workspace: str) -> Sequence[PlayedTurn]:
        """What happened in a run so far; nothing where the workspace has none such. Raises StoreUnavailable."""
        return self._queries.turns(run_id, workspace_name=workspace)
