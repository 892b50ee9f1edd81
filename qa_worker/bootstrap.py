"""The only module that builds adapters. Entry points ask here for what they need and get it ready made."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import structlog

from qa_worker import rubrics
from qa_worker.adapters.eventloop import EventLoop, JudgeOnLoop
from qa_worker.adapters.importers.files import read_calls as read_calls_from
from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.adapters.offline.judge import RulesJudge
from qa_worker.adapters.postgres.engine import make_engine
from qa_worker.adapters.postgres.leases import LeaseKeeper
from qa_worker.adapters.postgres.migrate import revisions, upgrade
from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.records import GroupedRecords
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.application._grading import Tools
from qa_worker.application.judging import Judge, JudgeAnswer, JudgeRequest
from qa_worker.application.ports import Grading, NamedRubric, UnitOfWorkFactory, Wanted
from qa_worker.application.queries import Queries
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.call import Call, CallId
from qa_worker.domain.errors import CallConflict, InvalidInput
from qa_worker.domain.prompt import PROMPT_VERSION
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind
from qa_worker.observability import configure
from qa_worker.producer import Producer
from qa_worker.settings import Settings, settings


class SystemClock:
    """Implements the port `Clock`."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)  # noqa: TID251 - this is the clock


class RandomJitter:
    """Implements the port `Jitter`."""

    def fraction(self) -> float:
        """See the port."""
        return random.random()  # noqa: S311 - spreads retries, guards nothing


class StructlogContext:
    """Implements the port `LogContext`."""

    def bind(self, **ids: str | int) -> None:
        """See the port."""
        structlog.contextvars.bind_contextvars(**ids)


@dataclass(frozen=True, slots=True)
class Worker:
    """What the tasks of one worker process need."""

    evaluating: Tools
    uow: UnitOfWorkFactory
    grading: Grading
    in_flight_limit: int
    resend_after_s: float
    waiting: Callable[[], int]
    close: Callable[[], None]


class Client:
    """What a command needs to hand over calls and to look at results, with one connection pool."""

    def __init__(self, *, database_url: str | None = None, broker_url: str | None = None) -> None:
        self._settings = settings()
        given = Settings.model_validate({"DATABASE_URL": database_url}) if database_url else self._settings
        self._database_url = given.database_url.get_secret_value()
        self._publisher = Publisher(broker_url or self._settings.broker_url.get_secret_value())
        self._engine = make_engine(
            self._database_url,
            pool_size=min(2, self._settings.db_pool_size),
            pool_timeout_s=self._settings.db_pool_timeout_s,
            application_name="qa-worker",
        )

    @property
    def judge(self) -> JudgeKind:
        """The judge that calls get where nobody chooses one."""
        return _judge_kind(self._settings)

    @cached_property
    def queries(self) -> Queries:
        """The read side."""
        return PostgresQueries(self._engine)

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
            grading=_grading(self._settings),
            in_flight_limit=self._settings.in_flight_limit,
            wanted=wanted,
        )

    def set_default_rubric(self, rubric: NamedRubric, *, workspace: str, agent: str | None) -> None:
        """Make this the rubric of a workspace or of one of its agents. Raises LookupError: no such agent."""
        with self._uow() as work:
            work.rubrics.set_default(workspace, rubric, agent_ref=agent)
            work.commit()

    def revisions(self) -> tuple[str | None, str | None]:
        """(the database's migration, the newest one known). Raises StoreUnavailable."""
        return revisions(self._engine, self._database_url)

    def retry(self, call_ids: Sequence[CallId]) -> int:
        """Let dead evaluations of these calls (of all calls, where none is named) begin anew; returns how many."""
        with self._uow() as work:
            revived = work.evaluations.revive(call_ids)
            work.commit()
        return len(revived)

    def upgrade(self) -> None:
        """Bring the schema up to date. Raises StoreUnavailable."""
        upgrade(self._database_url)

    def close(self) -> None:
        """Give all connections back."""
        self._publisher.close()
        self._engine.dispose()

    def _uow(self) -> PostgresUnitOfWork:
        return PostgresUnitOfWork(self._engine, send=self._publisher.send, prompt_version=PROMPT_VERSION)


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
            _process.worker, _process.pid = _build_worker(settings()), os.getpid()
        return _process.worker


def close_worker() -> None:
    """Give back what `worker` opened."""
    with _process.lock:
        if _process.worker is not None and _process.pid == os.getpid():
            _process.worker.close()
        _process.worker = None


def read_calls(path: Path) -> Iterator[Call | InvalidInput]:
    """The calls of a file; a record that can't be accepted comes as its error, and the others go on."""
    chosen = settings()
    limits = Limits(max_transcript_bytes=chosen.max_transcript_bytes, max_turns=chosen.max_turns)
    return read_calls_from(path, limits=limits, source=str(path))


def read_rubric(path: Path) -> NamedRubric:
    """The rubric of a file. Raises InvalidInput, OSError."""
    return _named_rubric(path.read_text(encoding="utf-8"), source=str(path))


def external_services() -> tuple[str | None, str | None]:
    """(DATABASE_URL, BROKER_URL) as the environment gives them; None where it gives none."""
    return os.environ.get("DATABASE_URL") or None, os.environ.get("BROKER_URL") or None


def queue_lengths(broker_url: str) -> dict[str, int]:
    """How many messages wait in each queue. Raises StoreUnavailable where the broker is away."""
    with Producer(broker_url) as producer:
        return producer.queue_lengths()


def log_to_stderr() -> None:
    """Send the log lines of a command to stderr: stdout is for its results."""
    configure(level="WARNING")


def has_api_key() -> bool:
    """True where Claude could be asked."""
    return settings().anthropic_api_key is not None


def _build_worker(chosen: Settings) -> Worker:
    publisher = Publisher(chosen.broker_url.get_secret_value())
    engine = make_engine(
        chosen.database_url.get_secret_value(),
        pool_size=chosen.db_pool_size,
        pool_timeout_s=chosen.db_pool_timeout_s,
        application_name="qa-worker-worker",
    )
    leases = LeaseKeeper(engine, lease_s=chosen.lease_s)
    judges, close_judges = _judges(chosen)

    def uow() -> PostgresUnitOfWork:
        return PostgresUnitOfWork(engine, send=publisher.send, prompt_version=PROMPT_VERSION)

    def close() -> None:
        leases.close()
        records.close()
        close_judges()
        publisher.close()
        engine.dispose()

    records = GroupedRecords(uow, window_s=chosen.record_window_s, patience_s=chosen.lease_s)
    grading = _grading(chosen)
    tools = Tools(
        uow=uow,
        records=records,
        leases=leases,
        context=StructlogContext(),
        judges=judges,
        clock=SystemClock(),
        jitter=RandomJitter(),
        policy=_policy(chosen),
        grading=grading,
        lease_s=chosen.lease_s,
    )
    return Worker(tools, uow, grading, chosen.in_flight_limit, chosen.resend_after_s, publisher.waiting, close)


def _judges(chosen: Settings) -> tuple[dict[JudgeKind, Judge], Callable[[], None]]:
    judges: dict[JudgeKind, Judge] = {JudgeKind.RULES: RulesJudge()}
    if chosen.anthropic_api_key is None:
        return judges, lambda: None
    # The SDK costs 1.5 s of CPU and 85 MB to import, which a process that never asks Claude need not pay.
    from qa_worker.adapters.claude.client import Timeouts  # noqa: PLC0415
    from qa_worker.adapters.claude.judge import ClaudeJudge  # noqa: PLC0415

    claude = ClaudeJudge(
        api_key=chosen.anthropic_api_key.get_secret_value(),
        base_url=chosen.anthropic_base_url,
        timeouts=Timeouts(
            connect_s=chosen.judge_connect_timeout_s,
            read_s=chosen.judge_read_timeout_s,
            total_s=chosen.judge_deadline_s,
        ),
        connections=chosen.evaluate_concurrency,
    )
    loop = EventLoop()

    class _Threaded:
        async def grade(self, request: JudgeRequest) -> JudgeAnswer:
            return await asyncio.to_thread(claude.grade, request)

    async def aclose() -> None:
        claude.close()

    on_loop = JudgeOnLoop(_Threaded(), loop, close=aclose)
    judges[JudgeKind.CLAUDE] = on_loop

    def close() -> None:
        on_loop.close()
        loop.close()

    return judges, close


def _judge_kind(chosen: Settings) -> JudgeKind:
    if chosen.judge == "auto":
        return JudgeKind.RULES if chosen.anthropic_api_key is None else JudgeKind.CLAUDE
    return JudgeKind(chosen.judge)


def _grading(chosen: Settings) -> Grading:
    return Grading(
        rubric=_named_rubric(rubrics.default_rubric_text(), source="the default rubric"),
        judge=_judge_kind(chosen),
        model=chosen.judge_model,
        effort=chosen.judge_effort,
        max_tokens=chosen.judge_max_tokens,
        max_attempts=chosen.max_attempts,
    )


def _policy(chosen: Settings) -> RetryPolicy:
    return RetryPolicy(
        schedule_s=chosen.retry_schedule_s,
        max_attempts=chosen.max_attempts,
        unreadable_attempts=chosen.unreadable_attempts,
    )


def _named_rubric(text: str, *, source: str) -> NamedRubric:
    rubric, overrides = parse_rubric(text, source=source)
    return NamedRubric(rubric, overrides)
