"""Rubrics, their versions, and which one holds for whom."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.tables import agents, default_rubrics, rubric_versions, rubrics
from qa_worker.application.ports import JudgeOverrides, NamedRubric, RubricVersion
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.rubric import (
    Checks,
    Criterion,
    JudgeKind,
    JudgeSpec,
    PhraseRule,
    Rubric,
    Severity,
    fingerprint,
)
from qa_worker.domain.transcript import canonical


class PostgresRubrics:
    """Implements the port `Rubrics` on one connection. `prompt_version` is part of what a version measures with."""

    def __init__(self, connection: Connection, *, prompt_version: str) -> None:
        self._connection = connection
        self._prompt_version = prompt_version
        # What this transaction has asked before: a batch of calls asks once for each agent.
        self._defaults: dict[tuple[WorkspaceId, uuid.UUID], NamedRubric | None] = {}
        self._versions: list[tuple[WorkspaceId, NamedRubric, RubricVersion]] = []

    def default_for(self, workspace: WorkspaceId, agent_id: uuid.UUID) -> NamedRubric | None:
        """See the port."""
        if (workspace, agent_id) not in self._defaults:
            self._defaults[workspace, agent_id] = self._default_for(workspace, agent_id)
        return self._defaults[workspace, agent_id]

    def _default_for(self, workspace: WorkspaceId, agent_id: uuid.UUID) -> NamedRubric | None:
        defaults = default_rubrics.c
        content = self._connection.execute(
            select(rubrics.c.content)
            .join(default_rubrics, defaults.rubric_id == rubrics.c.id)
            .where(defaults.workspace_id == workspace, (defaults.agent_id == agent_id) | defaults.agent_id.is_(None))
            .order_by(defaults.agent_id.is_(None))
            .limit(1)
        ).scalar_one_or_none()
        return None if content is None else rubric_from_json(content)

    def named(self, workspace: WorkspaceId, name: str) -> NamedRubric | None:
        """See the port."""
        found = select(rubrics.c.content).where(rubrics.c.workspace_id == workspace, rubrics.c.name == name)
        latest = found.order_by(rubrics.c.created_at.desc()).limit(1)
        content = self._connection.execute(latest).scalar_one_or_none()
        return None if content is None else rubric_from_json(content)

    def version(self, workspace: WorkspaceId, rubric: NamedRubric, judge: JudgeSpec) -> RubricVersion:
        """See the port."""
        for known_in, known, version in self._versions:
            if known_in == workspace and known is rubric and version.judge == judge:
                return version
        version = self._ensure_version(workspace, rubric, judge)
        self._versions.append((workspace, rubric, version))
        return version

    def _ensure_version(self, workspace: WorkspaceId, rubric: NamedRubric, judge: JudgeSpec) -> RubricVersion:
        prompt = self._prompt_version if judge.kind is JudgeKind.CLAUDE else ""
        print_ = fingerprint(rubric.rubric, judge, prompt_version=prompt)
        version_id = uuid.uuid5(workspace, f"rubric-version/{print_}")
        known = select(rubric_versions.c.id).where(rubric_versions.c.id == version_id)
        if self._connection.execute(known).one_or_none() is None:
            self._connection.execute(
                insert(rubric_versions)
                .values(
                    id=version_id,
                    workspace_id=workspace,
                    rubric_id=self._store(workspace, rubric),
                    fingerprint=print_,
                    judge=judge.kind.value,
                    model=judge.model,
                    effort=judge.effort,
                    max_tokens=judge.max_tokens,
                    votes=judge.votes,
                    borderline=judge.borderline,
                    prompt_version=prompt,
                )
                .on_conflict_do_nothing()
            )
        return RubricVersion(version_id, rubric.rubric, judge)

    def set_default(self, workspace_name: str, rubric: NamedRubric, *, agent_ref: str | None) -> None:
        """See the port."""
        self._defaults.clear()
        workspace = ensure_workspace(self._connection, workspace_name)
        agent_id = None if agent_ref is None else self._agent(workspace, agent_ref)
        insertion = insert(default_rubrics).values(
            id=uuid.uuid5(workspace, f"default-rubric/{agent_id or ''}"),
            workspace_id=workspace,
            agent_id=agent_id,
            rubric_id=self._store(workspace, rubric),
        )
        self._connection.execute(
            insertion.on_conflict_do_update(
                index_elements=[default_rubrics.c.id], set_={"rubric_id": insertion.excluded.rubric_id}
            )
        )

    def _agent(self, workspace: WorkspaceId, agent_ref: str) -> uuid.UUID:
        found = select(agents.c.id).where(agents.c.workspace_id == workspace, agents.c.ref == agent_ref)
        agent_id: uuid.UUID | None = self._connection.execute(found).scalar_one_or_none()
        if agent_id is None:
            raise LookupError(agent_ref)
        return agent_id

    def _store(self, workspace: WorkspaceId, rubric: NamedRubric) -> uuid.UUID:
        content = rubric_to_json(rubric)
        print_ = hashlib.sha256(canonical(content).encode()).hexdigest()
        rubric_id = uuid.uuid5(workspace, f"rubric/{print_}")
        self._connection.execute(
            insert(rubrics)
            .values(id=rubric_id, workspace_id=workspace, name=rubric.rubric.name, fingerprint=print_, content=content)
            .on_conflict_do_nothing()
        )
        return rubric_id


def rubric_to_json(named: NamedRubric) -> dict[str, Any]:
    """The stored form of a rubric; `rubric_from_json` is its inverse."""
    overrides = asdict(named.overrides)
    for name in ("votes", "borderline"):
        if overrides[name] is None:
            # Rubrics from before there were votes keep their fingerprint, and so their row.
            del overrides[name]
    return {"rubric": asdict(named.rubric), "overrides": overrides}


def rubric_from_json(content: dict[str, Any]) -> NamedRubric:
    """A rubric from its stored form."""
    stored = content["rubric"]
    checks = stored["checks"]
    rubric = Rubric(
        name=stored["name"],
        criteria=tuple(_criterion(row) for row in stored["criteria"]),
        pass_threshold=stored["pass_threshold"],
        guidance=stored["guidance"],
        checks=Checks(
            required_phrases=tuple(_phrase(row) for row in checks["required_phrases"]),
            forbidden_phrases=tuple(_phrase(row) for row in checks["forbidden_phrases"]),
            slow_response_s=checks["slow_response_s"],
            dead_air_s=checks["dead_air_s"],
        ),
    )
    return NamedRubric(rubric, JudgeOverrides(**content["overrides"]))


def _criterion(row: dict[str, Any]) -> Criterion:
    # JSON has no integer keys: the levels come back as text.
    return Criterion(**{**row, "levels": {int(level): meaning for level, meaning in row["levels"].items()}})


def _phrase(row: dict[str, Any]) -> PhraseRule:
    return PhraseRule(row["phrase"], row["criterion"], Severity(row["severity"]))
