"""What one worker process needs, built once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from qa_worker.adapters.postgres.alert_rules import RuleBook
from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.leases import LeaseKeeper
from qa_worker.adapters.postgres.records import GroupedRecords
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.application._grading import Tools
from qa_worker.application.dispatch_work import dispatch_work
from qa_worker.application.ports import Rescued
from qa_worker.application.rescue_stalled import rescue_stalled
from qa_worker.bootstrap.alerts import AlertJobs, alert_jobs
from qa_worker.bootstrap.backlog import BacklogJobs
from qa_worker.bootstrap.clock import RandomJitter, StructlogContext, SystemClock
from qa_worker.bootstrap.dead_letters import LetterJobs
from qa_worker.bootstrap.gateway import SharedPace, judges
from qa_worker.bootstrap.grading import grading, retry_policy
from qa_worker.bootstrap.scenarios import ScenarioJobs
from qa_worker.bootstrap.sending import SendJobs
from qa_worker.domain.prompt import PROMPT_VERSION
from qa_worker.settings import Settings, settings


@dataclass(frozen=True, slots=True)
class Worker:
    """What the tasks of one worker process need."""

    evaluating: Tools
    backlog: BacklogJobs
    alerts: AlertJobs
    sending: SendJobs
    letters: LetterJobs
    scenarios: ScenarioJobs
    dispatch: Callable[[], int]
    rescue: Callable[[], Rescued]
    close: Callable[[], None]


@dataclass
class _Process:
    """The worker of this process: built once, after any fork, because a forked child must not share connections."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pid: int = 0
    worker: Worker | None = None


_process = _Process()


def worker() -> Worker:
    """The worker of this process, built with its first use."""
    with _process.lock:
        if _process.worker is None or _process.pid != os.getpid():
            _process.worker, _process.pid = _build(settings()), os.getpid()
        return _process.worker


def close_worker() -> None:
    """Give back what `worker` opened."""
    with _process.lock:
        if _process.worker is not None and _process.pid == os.getpid():
            _process.worker.close()
        _process.worker = None


def _build(chosen: Settings) -> Worker:
    publisher = Publisher(chosen.broker_url.get_secret_value())
    engine = make_engine(
        chosen.database_url.get_secret_value(),
        pool_size=chosen.db_pool_size,
        pool_timeout_s=chosen.db_pool_timeout_s,
        application_name="qa-worker-worker",
    )
    leases = LeaseKeeper(engine, lease_s=chosen.lease_s)
    available, close_judges = judges(chosen, engine)
    pace = SharedPace(chosen)

    book = RuleBook()

    def uow() -> PostgresUnitOfWork:
        return PostgresUnitOfWork(engine, send=publisher.send, prompt_version=PROMPT_VERSION, book=book)

    alerts = alert_jobs(chosen, engine, uow)
    sending = SendJobs(chosen, uow, publisher)
    letters = LetterJobs(chosen, uow)

    records = GroupedRecords(uow, window_s=chosen.record_window_s, patience_s=chosen.lease_s)

    def close() -> None:
        leases.close()
        records.close()
        backlog.close()
        alerts.close()
        sending.close()
        letters.close()
        scenarios.close()
        close_judges()
        pace.close()
        publisher.close()
        engine.dispose()

    tools = Tools(
        uow=uow,
        records=records,
        leases=leases,
        context=StructlogContext(),
        judges=available,
        clock=SystemClock(),
        jitter=RandomJitter(),
        policy=retry_policy(chosen),
        grading=grading(chosen),
        lease_s=chosen.lease_s,
    )
    backlog = BacklogJobs(chosen, engine, uow, tools)
    scenarios = ScenarioJobs(chosen, engine, tools, publisher)
    limit = chosen.in_flight_limit
    return Worker(
        evaluating=tools,
        backlog=backlog,
        alerts=alerts,
        sending=sending,
        letters=letters,
        scenarios=scenarios,
        dispatch=partial(dispatch_work, uow=uow, pace=pace, in_flight_limit=limit),
        rescue=partial(
            rescue_stalled,
            uow=uow,
            grading=tools.grading,
            resend_after_s=chosen.resend_after_s,
            in_flight_limit=limit,
            waiting=publisher.waiting,
        ),
        close=close,
    )
