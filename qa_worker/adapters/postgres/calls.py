"""Calls, agents, workspaces."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, func, select
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.tables import agent_versions, agents, calls, workspaces
from qa_worker.application.ports import Added, StoredCall
from qa_worker.domain import call as domain
from qa_worker.domain.call import Agent, Call, CallId, Expected, ToolSpec, WorkspaceId
from qa_worker.domain.errors import CallConflict
from qa_worker.domain.transcript import canonical, from_json, to_json


class PostgresCalls:
    """Implements the port `Calls` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, call: Call, *, workspace_name: str) -> Added:
        """See the port."""
        workspace = ensure_workspace(self._connection, workspace_name)
        agent_id = self._ensure_agent(workspace, call.agent)
        print_ = domain.fingerprint(call)
        row = {
            "id": domain.call_id(workspace, call.ref),
            "workspace_id": workspace,
            "agent_id": agent_id,
            "agent_version_id": self._ensure_agent_version(agent_id, call.agent),
            "ref": call.ref,
            "external_id": call.external_id,
            "fingerprint": print_,
            "started_at": call.started_at,
            "transcript": to_json(call.transcript),
            "turn_count": len(call.transcript),
            "expected": asdict(call.expected),
            "metadata": dict(call.metadata),
        }
        added = self._connection.execute(
            insert(calls).values(row).on_conflict_do_nothing().returning(calls.c.id)
        ).scalar_one_or_none()
        if added is not None:
            return Added(CallId(added), agent_id, created=True)
        known = self._connection.execute(
            select(calls.c.id, calls.c.agent_id, calls.c.fingerprint).where(
                calls.c.workspace_id == workspace, calls.c.ref == call.ref
            )
        ).one()
        if known.fingerprint != print_:
            raise CallConflict(call.ref)
        return Added(CallId(known.id), known.agent_id, created=False)

    def get(self, call_id: CallId) -> StoredCall | None:
        """See the port."""
        row = self._connection.execute(_STORED.where(calls.c.id == call_id)).one_or_none()
        return None if row is None else _to_stored(row)

    def unadmitted(self, *, older_than_s: float, limit: int) -> Sequence[CallId]:
        """See the port."""
        age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_s)
        rows = self._connection.execute(
            select(calls.c.id)
            .where(calls.c.admitted_at.is_(None), calls.c.created_at < func.now() - age)
            .order_by(calls.c.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [CallId(row.id) for row in rows]

    def _ensure_agent(self, workspace: WorkspaceId, agent: Agent) -> uuid.UUID:
        agent_id = uuid.uuid5(workspace, f"agent/{agent.id}")
        insertion = insert(agents).values(id=agent_id, workspace_id=workspace, ref=agent.id, name=agent.name)
        self._connection.execute(
            insertion.on_conflict_do_update(
                index_elements=[agents.c.id],
                set_={"name": insertion.excluded.name},
                # Writing the row only when its name changes keeps concurrent imports from queueing up behind each other.
                where=(agents.c.name != insertion.excluded.name) & (insertion.excluded.name != ""),
            )
        )
        return agent_id

    def _ensure_agent_version(self, agent_id: uuid.UUID, agent: Agent) -> uuid.UUID:
        tools = [{"name": t.name, "description": t.description, "parameters": dict(t.parameters)} for t in agent.tools]
        content = canonical([agent.version, agent.instructions, tools])
        print_ = hashlib.sha256(content.encode()).hexdigest()
        version_id = uuid.uuid5(agent_id, print_)
        self._connection.execute(
            insert(agent_versions)
            .values(
                id=version_id,
                agent_id=agent_id,
                fingerprint=print_,
                version=agent.version,
                instructions=agent.instructions,
                tools=tools,
            )
            .on_conflict_do_nothing()
        )
        return version_id


def ensure_workspace(connection: Connection, name: str) -> WorkspaceId:
    """The workspace with this name, made if there is none."""
    workspace = domain.workspace_id(name)
    connection.execute(insert(workspaces).values(id=workspace, name=name).on_conflict_do_nothing())
    return workspace


_STORED = (
    select(
        calls,
        workspaces.c.name.label("workspace_name"),
        agents.c.ref.label("agent_ref"),
        agents.c.name.label("agent_name"),
        agent_versions.c.version,
        agent_versions.c.instructions,
        agent_versions.c.tools,
    )
    .join(workspaces, workspaces.c.id == calls.c.workspace_id)
    .join(agents, agents.c.id == calls.c.agent_id)
    .join(agent_versions, agent_versions.c.id == calls.c.agent_version_id)
)


def _to_stored(row: Row[Any]) -> StoredCall:
    agent = Agent(
        id=row.agent_ref,
        name=row.agent_name,
        version=row.version,
        instructions=row.instructions,
        tools=tuple(ToolSpec(tool["name"], tool["description"], tool["parameters"]) for tool in row.tools),
    )
    call = Call(
        ref=row.ref,
        agent=agent,
        transcript=from_json(row.transcript),
        external_id=row.external_id,
        started_at=row.started_at,
        expected=_to_expected(row.expected),
        metadata=row.metadata,
    )
    return StoredCall(CallId(row.id), WorkspaceId(row.workspace_id), row.workspace_name, row.agent_id, call)


def _to_expected(stored: dict[str, Any]) -> Expected:
    lists = ("required_tools", "forbidden_tools", "required_phrases", "forbidden_phrases")
    return Expected(outcome=stored.get("outcome", ""), **{name: tuple(stored.get(name, ())) for name in lists})
