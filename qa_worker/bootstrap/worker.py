"""What one worker process needs, built once."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from qa_worker.adapters.postgres.alert_rules import RuleBook
from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.leases import LeaseKeeper
from qa_worker.adapters.postgres.records import GroupedRecords
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.adapters.together import Together
from qa_worker.application._grading import Tools
from qa_worker.application._sending import share_of_nudges
from qa_worker.application.dispatch_work import dispatch_work
from qa_worker.application.evaluate_call import claim_calls, evaluate_call
from qa_worker.application.ports import Rescued
from qa_worker.application.rescue_stalled import rescue_stalled
from qa_worker.bootstrap.clock import RandomJitter, StructlogContext, SystemClock
from qa_worker.bootstrap.gateway import SharedPace, budget, judges
from qa_worker.bootstrap.grading import grading, retry_policy
from qa_worker.domain.call import CallId
from qa_worker.domain.outcome import Outcome
from qa_worker.domain.prompt import PROMPT_VERSION
from qa_worker.messages import Queue
from qa_worker.settings import Settings, settings

if TYPE_CHECKING:
    from qa_worker.bootstrap.alerts import AlertJobs
    from qa_worker.bootstrap.backlog import BacklogJobs
    from qa_worker.bootstrap.dead_letters import LetterJobs
    from qa_worker.bootstrap.scenarios import ScenarioJobs
    from qa_worker.bootstrap.sending import SendJobs


class _Closes(Protocol):
    def close(self) -> None: ...


_Part = TypeVar("_Part", bound=_Closes)


@dataclass(frozen=True, slots=True)
class Serves:
    """The queues that this process takes from, and how many messages at once; None is what the settings say."""

    queues: Collection[str] = ()
    slots: int | None = None


def pool_size(chosen: Settings, queues: Collection[str]) -> int:
    """Database connections of a process that serves these queues: of several kinds, what the largest one needs."""
    sizes: dict[str, int] = {
        Queue.EVALUATE_CALL: chosen.evaluate_db_pool_size,
        Queue.BACKLOG: chosen.evaluate_db_pool_size,
        Queue.RUN_SCENARIO: chosen.run_db_pool_size,
        Queue.SEND_ALERT: chosen.alert_db_pool_size,
        Queue.MAINTENANCE: chosen.maintenance_db_pool_size,
    }
    return max((sizes[queue] for queue in queues if queue in sizes), default=chosen.db_pool_size)


class Worker:
    """What the tasks of one worker process need.

    Grading is built at once; every other part with its first use, together with what it imports: a process that grades
    never sends webhooks, and 20 MB of libraries it never calls are a tenth of its memory.
    """

    def __init__(self, chosen: Settings, serves: Serves) -> None:
        self._settings = chosen
        self.pool_size = pool_size(chosen, serves.queues)
        self._lock = threading.RLock()
        self._parts: dict[str, _Closes] = {}
        self._publisher = Publisher(chosen.broker_url.get_secret_value())
        self._engine = make_engine(
            chosen.database_url.get_secret_value(),
            pool_size=self.pool_size,
            pool_timeout_s=chosen.db_pool_timeout_s,
            application_name="qa-worker-worker",
        )
        self._budget = budget(chosen, self._engine)
        self._book = RuleBook()
        self._leases = LeaseKeeper(self._engine, lease_s=chosen.lease_s)
        self._records = GroupedRecords(self._uow, window_s=chosen.record_window_s, patience_s=chosen.lease_s)
        available, self._close_judges = judges(chosen, self._engine)
        self.evaluating = Tools(
            uow=self._uow,
            records=self._records,
            leases=self._leases,
            context=StructlogContext(),
            judges=available,
            clock=SystemClock(),
            jitter=RandomJitter(),
            policy=retry_policy(chosen),
            grading=grading(chosen),
            lease_s=chosen.lease_s,
            share=share_of_nudges(chosen.in_flight_limit, serves.slots or chosen.evaluate_concurrency),
        )

        self._claims = Together(
            partial(claim_calls, tools=self.evaluating), window_s=chosen.claim_window_s, thread_name="claims"
        )

    def evaluate(self, call_id: CallId, evaluation_id: uuid.UUID | None) -> Outcome:
        """See `evaluate_call`."""
        return evaluate_call(
            call_id=call_id, evaluation_id=evaluation_id, tools=self.evaluating, claim=self._claims.ask
        )

    def dispatch(self) -> int:
        """See `dispatch_work`."""
        pace = self._part("pace", lambda: SharedPace(self._settings))
        return dispatch_work(
            uow=self._uow, pace=pace, left=self._budget.left, in_flight_limit=self._settings.in_flight_limit
        )

    def rescue(self) -> Rescued:
        """See `rescue_stalled`."""
        return rescue_stalled(
            uow=self._uow,
            grading=self.evaluating.grading,
            resend_after_s=self._settings.resend_after_s,
            in_flight_limit=self._settings.in_flight_limit,
            waiting=self._publisher.waiting,
        )

    @property
    def backlog(self) -> BacklogJobs:
        """Message Batches and backlogs."""
        from qa_worker.bootstrap.backlog import BacklogJobs  # noqa: PLC0415 - see the class

        return self._part("backlog", lambda: BacklogJobs(self._settings, self._engine, self._uow, self.evaluating))

    @property
    def alerts(self) -> AlertJobs:
        """Raising alerts."""
        from qa_worker.bootstrap.alerts import alert_jobs  # noqa: PLC0415 - see the class

        return self._part("alerts", lambda: alert_jobs(self._settings, self._engine, self._uow))

    @property
    def sending(self) -> SendJobs:
        """Sending alerts."""
        from qa_worker.bootstrap.sending import SendJobs  # noqa: PLC0415 - see the class

        return self._part("sending", lambda: SendJobs(self._settings, self._uow, self._publisher))

    @property
    def letters(self) -> LetterJobs:
        """Dead letters."""
        from qa_worker.bootstrap.dead_letters import LetterJobs  # noqa: PLC0415 - see the class

        return self._part("letters", lambda: LetterJobs(self._settings, self._uow))

    @property
    def scenarios(self) -> ScenarioJobs:
        """Playing scenarios."""
        from qa_worker.bootstrap.scenarios import ScenarioJobs  # noqa: PLC0415 - see the class

        return self._part(
            "scenarios", lambda: ScenarioJobs(self._settings, self._engine, self.evaluating, self._publisher)
        )

    def close(self) -> None:
        """Give everything back. What is under way has ended by then."""
        self._claims.close()
        self._leases.close()
        self._records.close()
        with self._lock:
            for part in self._parts.values():
                part.close()
        self._close_judges()
        self._publisher.close()
        self._engine.dispose()

    def _uow(self) -> PostgresUnitOfWork:
        return PostgresUnitOfWork(
            self._engine, send=self._publisher.send, prompt_version=PROMPT_VERSION, book=self._book
        )

    def _part(self, name: str, build: Callable[[], _Part]) -> _Part:
        with self._lock:
            part = self._parts.get(name)
            if part is None:
                part = self._parts[name] = build()
        return cast("_Part", part)


@dataclass
class _Process:
    """The worker of this process: built once, after any fork, because a forked child must not share connections."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pid: int = 0
    serves: Serves = field(default_factory=Serves)
    worker: Worker | None = None


_process = _Process()


def start_worker(serves: Serves) -> Worker:
    """Build the worker of this process for what it serves."""
    with _process.lock:
        _process.serves = serves
    return worker()


def worker() -> Worker:
    """The worker of this process, built with its first use."""
    with _process.lock:
        if _process.worker is None or _process.pid != os.getpid():
            _process.worker, _process.pid = Worker(settings(), _process.serves), os.getpid()
        return _process.worker


def close_worker() -> None:
    """Give back what `worker` opened."""
    with _process.lock:
        if _process.worker is not None and _process.pid == os.getpid():
            _process.worker.close()
        _process.worker = None
