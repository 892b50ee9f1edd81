"""The read side: views for the command line and, later, the API."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, or_, select

from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.tables import (
    agent_versions,
    agents,
    attempts,
    calls,
    evaluation_scores,
    evaluations,
    findings,
    rubric_versions,
    rubrics,
)
from qa_worker.adapters.postgres.waiting import used_models, waits_for
from qa_worker.application.purse import Left
from qa_worker.application.queries import AttemptView, Backlog, CallView, EvaluationView, Progress
from qa_worker.domain.call import workspace_id
from qa_worker.domain.evaluation import CriterionScore, Finding, Source, Usage
from qa_worker.domain.failure import FailureKind
from qa_worker.domain.rubric import Severity
from qa_worker.domain.work import WorkState

_AT_MOST = 20
_CHUNK = 1000


class PostgresQueries:
    """Implements the port `Queries`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def progress(self, evaluation_ids: Sequence[uuid.UUID]) -> Sequence[Progress]:
        """See the port."""
        wanted = select(evaluations.c.id, evaluations.c.state, evaluations.c.error_kind).where(
            evaluations.c.id == func.any(list(evaluation_ids))
        )
        with store_errors(), self._engine.connect() as connection:
            return [
                Progress(row.id, WorkState(row.state), row.state == "pending" and row.error_kind == FailureKind.BLOCKED)
                for row in connection.execute(wanted)
            ]

    def evaluations(self, evaluation_ids: Sequence[uuid.UUID]) -> Sequence[EvaluationView]:
        """See the port."""
        found: dict[uuid.UUID, EvaluationView] = {}
        with store_errors(), self._engine.connect() as connection:
            for start in range(0, len(evaluation_ids), _CHUNK):
                chunk = list(evaluation_ids[start : start + _CHUNK])
                views = _evaluation_views(connection, evaluations.c.id == func.any(chunk))
                found.update({view.id: view for view in views})
        return [found[evaluation_id] for evaluation_id in evaluation_ids if evaluation_id in found]

    def calls(self, workspace_name: str, wanted: str) -> Sequence[CallView]:
        """See the port."""
        matches: list[ColumnElement[bool]] = [calls.c.ref == wanted, calls.c.external_id == wanted]
        as_id = _uuid(wanted)
        if as_id is not None:
            matches.append(calls.c.id == as_id)
        query = (
            select(calls, agents.c.ref.label("agent_ref"), agents.c.name.label("agent_name"), agent_versions.c.version)
            .join(agents, agents.c.id == calls.c.agent_id)
            .join(agent_versions, agent_versions.c.id == calls.c.agent_version_id)
            .where(calls.c.workspace_id == workspace_id(workspace_name), or_(*matches))
            .order_by(calls.c.created_at.desc())
            .limit(_AT_MOST)
        )
        with store_errors(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
            return [_call_view(connection, row, workspace_name) for row in rows]

    def backlog(self, left: Left) -> Backlog:
        """See the port."""
        columns = evaluations.c
        with store_errors(), self._engine.connect() as connection:
            states = connection.execute(select(columns.state, func.count().label("n")).group_by(columns.state))
            by_state = {row.state: row.n for row in states}
            waiting, oldest_due_s = waits_for(connection, left)
        return Backlog(by_state=by_state, oldest_due_s=oldest_due_s, waits_for=waiting)

    def models(self) -> Collection[str]:
        """See the port."""
        with store_errors(), self._engine.connect() as connection:
            return used_models(connection)


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _call_view(connection: Connection, row: Row[Any], workspace_name: str) -> CallView:
    return CallView(
        id=row.id,
        workspace=workspace_name,
        ref=row.ref,
        external_id=row.external_id,
        agent=row.agent_name or row.agent_ref,
        agent_version=row.version,
        started_at=row.started_at,
        received_at=row.created_at,
        transcript=row.transcript,
        evaluations=tuple(_evaluation_views(connection, evaluations.c.call_id == row.id)),
    )


def _evaluation_views(connection: Connection, which: ColumnElement[bool]) -> list[EvaluationView]:
    rows = connection.execute(
        select(
            evaluations,
            calls.c.ref,
            calls.c.external_id,
            agents.c.ref.label("agent_ref"),
            agents.c.name.label("agent_name"),
            rubrics.c.name.label("rubric_name"),
            rubric_versions.c.fingerprint,
            rubric_versions.c.judge,
            rubric_versions.c.model,
        )
        .join(calls, calls.c.id == evaluations.c.call_id)
        .join(agents, agents.c.id == evaluations.c.agent_id)
        .join(rubric_versions, rubric_versions.c.id == evaluations.c.rubric_version_id)
        .join(rubrics, rubrics.c.id == rubric_versions.c.rubric_id)
        .where(which)
        .order_by(evaluations.c.created_at.desc())
    ).all()
    ids = [row.id for row in rows]
    scores = _details(connection, evaluation_scores, ids, evaluation_scores.c.position, _to_score)
    found = _details(connection, findings, ids, findings.c.position, _to_finding)
    tried = _details(connection, attempts, ids, attempts.c.started_at, _to_attempt)
    return [_view(row, scores[row.id], found[row.id], tried[row.id]) for row in rows]


def _details(connection: Connection, table: Any, ids: list[uuid.UUID], order: Any, convert: Any) -> Any:
    grouped: dict[uuid.UUID, list[Any]] = defaultdict(list)
    query = select(table).where(table.c.evaluation_id == func.any(ids)).order_by(order)
    for row in connection.execute(query):
        grouped[row.evaluation_id].append(convert(row))
    return grouped


def _view(row: Row[Any], scores: list[Any], found: list[Any], tried: list[Any]) -> EvaluationView:
    return EvaluationView(
        id=row.id,
        call_id=row.call_id,
        ref=row.ref,
        external_id=row.external_id,
        agent=row.agent_name or row.agent_ref,
        rubric=row.rubric_name,
        rubric_version=row.fingerprint[:12],
        judge=row.judge,
        model=row.model,
        state=WorkState(row.state),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        not_before=row.not_before,
        wait_reason=row.wait_reason,
        error_kind=row.error_kind,
        error_code=row.error_code,
        error_message=row.error_message,
        verdict=row.verdict,
        overall=row.overall,
        reasons=tuple(row.reasons),
        summary=row.summary,
        dropped_quotes=row.dropped_quotes,
        evaluated_at=row.evaluated_at,
        is_current=row.is_current,
        evidence=row.evidence or {},
        usage=_usage(row),
        cost_micro_usd=row.cost_micro_usd,
        scores=tuple(scores),
        findings=tuple(found),
        attempts=tuple(tried),
    )


def _usage(row: Row[Any]) -> Usage:
    return Usage(
        input_tokens=row.input_tokens,
        cache_read_tokens=row.cache_read_tokens,
        cache_write_5m_tokens=row.cache_write_5m_tokens,
        cache_write_1h_tokens=row.cache_write_1h_tokens,
        output_tokens=row.output_tokens,
        thinking_tokens=row.thinking_tokens,
    )


def _to_score(row: Row[Any]) -> CriterionScore:
    return CriterionScore(row.criterion, row.score, row.level, row.applicable, row.weight, row.explanation)


def _to_finding(row: Row[Any]) -> Finding:
    return Finding(
        criterion=row.criterion,
        severity=Severity(row.severity),
        explanation=row.explanation,
        turn=row.turn,
        quote=row.quote,
        source=Source(row.source),
        check=row.check,
    )


def _to_attempt(row: Row[Any]) -> AttemptView:
    return AttemptView(
        attempt=row.attempt,
        result=row.result,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error_kind=row.error_kind,
        error_code=row.error_code,
        error_message=row.error_message,
        model=row.model,
        request_id=row.request_id,
        usage=_usage(row),
        cost_micro_usd=row.cost_micro_usd,
        raw=row.raw,
    )
