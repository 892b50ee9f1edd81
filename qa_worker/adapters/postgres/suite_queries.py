"""The read side of suite runs: progress for those who watch, results for reports."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Text, cast, func, select

from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.runs import RUN_STATE, read_turns
from qa_worker.adapters.postgres.tables import (
    agents_under_test,
    evaluations,
    findings,
    rubric_versions,
    run_turns,
    runs,
    scenarios,
    suite_runs,
)
from qa_worker.application.running import RunProgress, RunView, SuiteLine, SuiteProgress, SuiteState
from qa_worker.domain.call import workspace_id
from qa_worker.domain.evaluation import Finding, Source
from qa_worker.domain.playback import PlayedTurn
from qa_worker.domain.rubric import Severity
from qa_worker.domain.run import Completion, RunState
from qa_worker.domain.suite import RunResult, SuiteResult

_STATE = RUN_STATE.label("run_state")
_IN_ORDER = (runs.c.position, runs.c.repeat, runs.c.attempt_no)
_RUNS = select(runs, _STATE, scenarios.c.ref.label("scenario"), scenarios.c.fingerprint, scenarios.c.content).join(
    scenarios, scenarios.c.id == runs.c.scenario_id
)


class PostgresSuiteQueries:
    """Implements the port `SuiteQueries`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def progress(self, suite_run_id: uuid.UUID, *, workspace_name: str) -> SuiteProgress | None:
        """See the port."""
        # One snapshot for both: a suite that is done has no run that isn't.
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with store_errors(), engine.connect() as connection:
            suite = connection.execute(select(suite_runs).where(*_of(suite_run_id, workspace_name))).one_or_none()
            if suite is None:
                return None
            limit = scenarios.c.content["limits"]["max_turns"].as_integer().label("max_turns")
            rows = connection.execute(
                select(runs, _STATE, scenarios.c.ref.label("scenario"), limit)
                .join(scenarios, scenarios.c.id == runs.c.scenario_id)
                .where(runs.c.suite_run_id == suite_run_id)
                .order_by(*_IN_ORDER)
            ).all()
        asked = suite.cancel_requested_at is not None
        return SuiteProgress(suite.id, suite.name, SuiteState(suite.state), asked, tuple(map(_progress, rows)))

    def result(self, suite_run_id: uuid.UUID, *, workspace_name: str) -> SuiteResult | None:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            suite = connection.execute(_SUITE.where(*_of(suite_run_id, workspace_name))).one_or_none()
            if suite is None:
                return None
            rows = connection.execute(_RESULTS.where(runs.c.suite_run_id == suite_run_id).order_by(*_IN_ORDER)).all()
            found = _findings(connection, [row.evaluation_id for row in rows if row.evaluation_id])
            faults = _test_faults(connection, suite_run_id)
        return SuiteResult(
            name=suite.name,
            agent=suite.agent,
            agent_version=suite.label or suite.version,
            runs=tuple(_result(row, found[row.evaluation_id], faults[row.id]) for row in rows),
            started_at=suite.created_at,
            completed_at=suite.completed_at,
            target=suite.kind,
        )

    def run(self, run_id: uuid.UUID, *, workspace_name: str) -> RunView | None:
        """See the port."""
        mine = (runs.c.id == run_id, runs.c.workspace_id == workspace_id(workspace_name))
        # One snapshot: no turn that the run's state doesn't know of.
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with store_errors(), engine.connect() as connection:
            row = connection.execute(_RESULTS.where(*mine)).one_or_none()
            if row is None:
                return None
            suite = connection.execute(_SUITE.where(suite_runs.c.id == row.suite_run_id)).one()
            found = _findings(connection, [row.evaluation_id] if row.evaluation_id else [])
            faults = _test_faults(connection, suite.id)
            turns = read_turns(connection, run_id)
        return RunView(
            run=_result(row, found[row.evaluation_id], faults[run_id]),
            suite_run_id=suite.id,
            suite=suite.name,
            agent=suite.agent,
            agent_version=suite.label or suite.version,
            turns=turns,
        )

    def runs_beginning(self, beginning: str, *, workspace_name: str, limit: int) -> Sequence[uuid.UUID]:
        """See the port."""
        alike = cast(runs.c.id, Text).startswith(beginning.casefold(), autoescape=True)
        latest = select(runs.c.id).where(runs.c.workspace_id == workspace_id(workspace_name), alike)
        with store_errors(), self._engine.connect() as connection:
            return connection.execute(latest.order_by(runs.c.created_at.desc()).limit(limit)).scalars().all()

    def recent(self, workspace_name: str, *, limit: int) -> Sequence[SuiteLine]:
        """See the port."""
        latest = _SUITE.where(suite_runs.c.workspace_id == workspace_id(workspace_name))
        with store_errors(), self._engine.connect() as connection:
            suites = connection.execute(latest.order_by(suite_runs.c.created_at.desc()).limit(limit)).all()
            counted = connection.execute(
                select(runs.c.suite_run_id, _STATE, func.count().label("n"))
                .where(runs.c.suite_run_id.in_([suite.id for suite in suites]))
                .group_by(runs.c.suite_run_id, _STATE)
            ).all()
        counts: dict[uuid.UUID, dict[RunState, int]] = defaultdict(dict)
        for row in counted:
            counts[row.suite_run_id][RunState(row.run_state)] = row.n
        return [
            SuiteLine(one.id, one.name, one.agent, one.label, SuiteState(one.state), one.created_at, counts[one.id])
            for one in suites
        ]

    def turns(self, run_id: uuid.UUID, *, workspace_name: str) -> Sequence[PlayedTurn]:
        """See the port."""
        mine = select(runs.c.id).where(runs.c.id == run_id, runs.c.workspace_id == workspace_id(workspace_name))
        with store_errors(), self._engine.connect() as connection:
            return read_turns(connection, run_id) if connection.execute(mine).first() else ()


_RESULTS = (
    _RUNS.add_columns(
        evaluations.c.overall,
        evaluations.c.cost_micro_usd.label("judge_cost"),
        rubric_versions.c.judge,
        rubric_versions.c.fingerprint.label("rubric_version"),
    )
    .outerjoin(evaluations, evaluations.c.id == runs.c.evaluation_id)
    .outerjoin(rubric_versions, rubric_versions.c.id == evaluations.c.rubric_version_id)
)
_SUITE = select(
    suite_runs, agents_under_test.c.ref.label("agent"), agents_under_test.c.version, agents_under_test.c.kind
).join(agents_under_test, agents_under_test.c.id == suite_runs.c.agent_under_test_id)


def _of(suite_run_id: uuid.UUID, workspace_name: str) -> tuple[ColumnElement[bool], ...]:
    return suite_runs.c.id == suite_run_id, suite_runs.c.workspace_id == workspace_id(workspace_name)


def _progress(row: Row[Any]) -> RunProgress:
    return RunProgress(
        id=row.id,
        scenario=row.scenario,
        repeat=row.repeat,
        attempt_no=row.attempt_no,
        state=RunState(row.run_state),
        turns=row.turn_count,
        max_turns=row.max_turns,
        wait_reason=row.wait_reason,
        message=row.message or row.error_message,
        waits_until=_waits_until(row),
    )


def _waits_until(row: Row[Any]) -> datetime | None:
    return row.not_before if row.wait_reason and row.run_state == RunState.PENDING else None


def _result(row: Row[Any], found: Sequence[Finding], faults: Sequence[str]) -> RunResult:
    costs = [cost for cost, known in ((row.cost_micro_usd, True), (row.judge_cost, row.evaluation_id)) if known]
    return RunResult(
        run_id=str(row.id),
        scenario=row.scenario,
        title=row.content["title"],
        state=RunState(row.run_state),
        repeat=row.repeat,
        attempt=row.attempt_no,
        scenario_version=row.fingerprint,
        completion=Completion(row.completion) if row.completion else None,
        turns=row.turn_count,
        overall=row.overall,
        findings=tuple(found),
        message=row.message or row.error_message,
        waits_for=row.wait_reason if row.run_state == RunState.PENDING else "",
        waits_until=_waits_until(row),
        started_at=row.begun_at,
        completed_at=row.completed_at,
        # Unknown is not zero.
        cost_micro_usd=None if None in costs else sum(costs),
        test_faults=tuple(faults),
        caller=row.caller,
        judge=row.judge or "",
        rubric_version=row.rubric_version or "",
    )


def _findings(connection: Connection, evaluation_ids: Sequence[uuid.UUID]) -> defaultdict[Any, list[Finding]]:
    columns = findings.c
    rows = connection.execute(
        select(findings)
        .where(columns.evaluation_id == func.any(list(evaluation_ids)))
        .order_by(columns.evaluation_id, columns.position)
    )
    found: defaultdict[Any, list[Finding]] = defaultdict(list)
    for row in rows:
        severity, source = Severity(row.severity), Source(row.source)
        found[row.evaluation_id].append(
            Finding(row.criterion, severity, row.explanation, row.turn, row.quote, source, row.check)
        )
    return found


def _test_faults(connection: Connection, suite_run_id: uuid.UUID) -> defaultdict[uuid.UUID, list[str]]:
    rows = connection.execute(
        select(run_turns.c.run_id, run_turns.c.content["faults"].label("faults"))
        .join(runs, runs.c.id == run_turns.c.run_id)
        .where(runs.c.suite_run_id == suite_run_id, run_turns.c.content.has_key("faults"))
        .order_by(run_turns.c.run_id, run_turns.c.index)
    )
    found: defaultdict[uuid.UUID, list[str]] = defaultdict(list)
    for row in rows:
        found[row.run_id] += row.faults
    return found
