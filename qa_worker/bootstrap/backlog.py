"""Builds what chooses and submits backlogs, and what goes on with batches."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from qa_worker.adapters.claude.sizes import StoredSizes
from qa_worker.adapters.eventloop import EventLoop
from qa_worker.adapters.postgres.backlog_queries import PostgresBacklogQueries
from qa_worker.application._batch_steps import BatchRules, BatchTools, BatchUnits
from qa_worker.application._grading import Tools
from qa_worker.application.advance_batches import Advanced, advance_batches
from qa_worker.application.backlog_queries import BacklogStatus, compare
from qa_worker.application.batch_backlog import BatchLimits, Preview, Submitted, preview_backlog, submit_backlog
from qa_worker.application.batch_gateway import GatedBatches
from qa_worker.application.batching import BatchService
from qa_worker.application.limits import Admission, Gate, Verdict
from qa_worker.application.ports import Grading
from qa_worker.bootstrap.clock import SystemClock
from qa_worker.bootstrap.gateway import budget, redis_url, shared_limits
from qa_worker.domain.backlog import Selection, Via
from qa_worker.domain.changes import Changes
from qa_worker.settings import Settings

_MB = 1_000_000
_AT_ONCE = 20_000
"""Calls that one run of the scheduled job submits, in about 4 s; a message of its own goes on with the rest."""


class BacklogJobs:
    """What the tasks about backlogs call."""

    def __init__(self, chosen: Settings, engine: Engine, units: BatchUnits, grading: Tools) -> None:
        service, self._close = _service(chosen)
        rules = BatchRules(
            max_requests=chosen.batch_max_requests,
            lease_s=chosen.batch_lease_s,
            poll_s=chosen.batch_poll_s,
            settle_s=chosen.batch_settle_s,
        )
        self._tools = BatchTools(
            units=units,
            grading=grading,
            service=service,
            left=budget(chosen, engine).left,
            sizer=StoredSizes(),
            rules=rules,
        )

    def advance(self) -> Advanced:
        """Go on with batches; see `advance_batches`."""
        return advance_batches(tools=self._tools)

    def submit(self) -> Submitted:
        """Submit everything without a verdict under the rubric version that holds for it."""
        return submit_backlog(
            units=self._tools.units,
            grading=self._tools.grading.grading,
            selection=Selection(),
            via=Via.AUTO,
            limit=_AT_ONCE,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._close()


class Backlog:
    """What the commands about backlogs call."""

    def __init__(self, chosen: Settings, engine: Engine, units: BatchUnits, grading: Grading) -> None:
        self._units = units
        self._grading = grading
        self._queries = PostgresBacklogQueries(engine)
        self._limits = BatchLimits(chosen.batch_max_requests, round(chosen.batch_max_mb * _MB))

    def preview(self, selection: Selection, via: Via) -> Preview:
        """What submitting would make and cost; see `preview_backlog`."""
        return preview_backlog(
            units=self._units,
            grading=self._grading,
            selection=selection,
            via=via,
            sizer=StoredSizes(),
            limits=self._limits,
            today=SystemClock().now().date(),
        )

    def submit(self, selection: Selection, via: Via) -> Submitted:
        """Submit the chosen calls; see `submit_backlog`."""
        return submit_backlog(units=self._units, grading=self._grading, selection=selection, via=via)

    def status(self) -> BacklogStatus:
        """Open and recent batches, and what waits. Raises StoreUnavailable."""
        return self._queries.status()

    def cancel(self, name: str) -> Sequence[uuid.UUID]:
        """Ask for the end of the open batch that `name` fits; see `BatchRows.ask_cancel`. Raises StoreUnavailable."""
        with self._units() as work:
            found = work.batches.ask_cancel(name)
            work.commit()
        return found

    def changes(self, selection: Selection, *, rubric: str | None, keep: int) -> Changes:
        """Verdicts now beside those before; see `compare`. Raises StoreUnavailable."""
        return compare(queries=self._queries, selection=selection, rubric=rubric, keep=keep)


def _service(chosen: Settings) -> tuple[BatchService | None, Callable[[], None]]:
    """The batch service behind the gate, and what closes it; None without a key."""
    if chosen.anthropic_api_key is None:
        return None, lambda: None
    # As in `gateway`: the SDK is dear to import, and who never asks Claude need not pay for it.
    from qa_worker.adapters.claude.batches import ClaudeBatches  # noqa: PLC0415

    claude = ClaudeBatches(
        chosen.anthropic_api_key.get_secret_value(),
        base_url=chosen.anthropic_base_url,
        connect_s=chosen.judge_connect_timeout_s,
        max_bytes=round(chosen.batch_max_mb * _MB),
    )
    gate, limiter = shared_limits(chosen, redis_url(chosen))
    loop = EventLoop()

    def close() -> None:
        claude.close()
        for connection in (gate, limiter):
            loop.run(connection.close())
        loop.close()

    return GatedBatches(claude, _GateOnLoop(gate, loop)), close


class _GateOnLoop:
    """Implements the port `BlockingGate` with an asynchronous gate."""

    def __init__(self, gate: Gate, loop: EventLoop) -> None:
        self._gate = gate
        self._loop = loop

    def admit(self, service: str) -> Admission:
        """See the port."""
        return self._loop.run(self._gate.admit(service))

    def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        """See the port."""
        self._loop.run(self._gate.report(service, verdict, admission))
