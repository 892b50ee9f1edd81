"""Calls, agents, workspaces."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ARRAY, Connection, Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.tables import agent_versions, agents, calls, workspaces
from qa_worker.application.ports import Added, CallKey
from qa_worker.domain import call as domain
from qa_worker.domain.call import Agent, Call, CallId, Expected, ToolSpec, WorkspaceId
from qa_worker.domain.errors import CallConflict
from qa_worker.domain.transcript import canonical, from_json, to_json


class PostgresCalls:
    """Implements the port `Calls` on one connection.

    Workspaces and agents that this transaction has made sure of are remembered, so that a batch asks once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._workspaces: dict[str, WorkspaceId] = {}
        self._agents: list[tuple[WorkspaceId, Agent, tuple[uuid.UUID, uuid.UUID]]] = []

    def add_all(self, batch: Sequence[Call], *, workspace_name: str) -> Sequence[Added | CallConflict]:
        """See the port."""
        workspace = self._workspaces.get(workspace_name)
        if workspace is None:
            workspace = self._workspaces[workspace_name] = ensure_workspace(self._connection, workspace_name)
        prints = [domain.fingerprint(call) for call in batch]
        rows: dict[str, dict[str, Any]] = {}
        # In one order for everybody: producers that hand over the same calls wait for each other, but never in a circle.
        for place in sorted(range(len(batch)), key=lambda place: (batch[place].agent.id, batch[place].ref, place)):
            call = batch[place]
            if call.ref not in rows:
                rows[call.ref] = self._row(workspace, call, prints[place])
        created = set(self._connection.execute(_ADD, list(rows.values())).scalars()) if rows else set()
        known = {row["ref"]: row for row in rows.values() if row["id"] in created}
        known |= self._stored(workspace, [ref for ref in rows if ref not in known])
        return [_added(known[call.ref], print_, created) for call, print_ in zip(batch, prints, strict=True)]

    def _row(self, workspace: WorkspaceId, call: Call, print_: str) -> dict[str, Any]:
        agent_id, version_id = self._agent(workspace, call.agent)
        return {
            "id": domain.call_id(workspace, call.ref),
            "workspace_id": workspace,
            "agent_id": agent_id,
            "agent_version_id": version_id,
            "ref": call.ref,
            "external_id": call.external_id,
            "fingerprint": print_,
            "started_at": call.started_at,
            "transcript": to_json(call.transcript),
            "turn_count": len(call.transcript),
            "expected": asdict(call.expected),
            "metadata": dict(call.metadata),
        }

    def _stored(self, workspace: WorkspaceId, refs: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What was handed over before, by its ref."""
        if not refs:
            return {}
        found = self._connection.execute(_STORED, {"workspace": workspace, "refs": list(refs)})
        return {row["ref"]: dict(row) for row in found.mappings()}

    def keys(self, call_ids: Sequence[CallId]) -> Sequence[CallKey]:
        """See the port."""
        return [_to_key(row) for row in self._connection.execute(_KEY.where(calls.c.id == func.any(list(call_ids))))]

    def unadmitted(self, *, older_than_s: float, limit: int) -> Sequence[CallKey]:
        """See the port."""
        age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_s)
        rows = self._connection.execute(
            _KEY.where(calls.c.admitted_at.is_(None), calls.c.created_at < func.now() - age)
            .order_by(calls.c.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [_to_key(row) for row in rows]

    def _agent(self, workspace: WorkspaceId, agent: Agent) -> tuple[uuid.UUID, uuid.UUID]:
        """The ids of the agent and of this version of it, made if there are none."""
        for known_in, known, ids in self._agents:
            if known_in == workspace and known == agent:
                return ids
        agent_id = self._ensure_agent(workspace, agent)
        ids = (agent_id, self._ensure_agent_version(agent_id, agent))
        self._agents.append((workspace, agent, ids))
        return ids

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


_ADD = insert(calls).on_conflict_do_nothing().returning(calls.c.id)
_STORED = select(calls.c.id, calls.c.workspace_id, calls.c.agent_id, calls.c.ref, calls.c.fingerprint).where(
    calls.c.workspace_id == bindparam("workspace"), calls.c.ref == func.any(bindparam("refs", type_=ARRAY(Text)))
)
_KEY = select(calls.c.id, calls.c.workspace_id, calls.c.agent_id)


def _added(stored: Mapping[str, Any], print_: str, created: set[uuid.UUID]) -> Added | CallConflict:
    """The first of two calls with one ref in a batch is the one that is made; the second was handed over before."""
    if stored["fingerprint"] != print_:
        return CallConflict(stored["ref"])
    is_new = stored["id"] in created
    created.discard(stored["id"])
    key = CallKey(CallId(stored["id"]), WorkspaceId(stored["workspace_id"]), stored["agent_id"])
    return Added(key, created=is_new)


def _to_key(row: Any) -> CallKey:
    return CallKey(CallId(row.id), WorkspaceId(row.workspace_id), row.agent_id)


def to_call(row: Any) -> Call:
    """A call from a row of `calls` with its agent's columns (see `CALL_COLUMNS`)."""
    agent = Agent(
        id=row.agent_ref,
        name=row.agent_name,
        version=row.version,
        instructions=row.instructions,
        tools=tuple(ToolSpec(tool["name"], tool["description"], tool["parameters"]) for tool in row.tools),
    )
    return Call(
        ref=row.ref,
        agent=agent,
        transcript=from_json(row.transcript),
        external_id=row.external_id,
        started_at=row.call_started_at,
        expected=_to_expected(row.expected),
        metadata=row.metadata,
    )


CALL_COLUMNS = (
    calls.c.ref,
    calls.c.external_id,
    calls.c.started_at.label("call_started_at"),
    calls.c.transcript,
    calls.c.expected,
    calls.c.metadata,
    workspaces.c.name.label("workspace_name"),
    agents.c.ref.label("agent_ref"),
    agents.c.name.label("agent_name"),
    agent_versions.c.version,
    agent_versions.c.instructions,
    agent_versions.c.tools,
)


def _to_expected(stored: dict[str, Any]) -> Expected:
    lists = ("required_tools", "forbidden_tools", "required_phrases", "forbidden_phrases")
    return Expected(outcome=stored.get("outcome", ""), **{name: tuple(stored.get(name, ())) for name in lists})
