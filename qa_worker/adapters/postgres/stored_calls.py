"""A stored call as the domain knows it."""

from __future__ import annotations

import uuid

from sqlalchemy import Engine, select

from qa_worker.adapters.postgres.calls import CALL_COLUMNS, to_call
from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.tables import agent_versions, agents, calls, workspaces
from qa_worker.domain.call import Call

_CALL = (
    select(*CALL_COLUMNS)
    .join(workspaces, workspaces.c.id == calls.c.workspace_id)
    .join(agents, agents.c.id == calls.c.agent_id)
    .join(agent_versions, agent_versions.c.id == calls.c.agent_version_id)
)


def stored_call(engine: Engine, call_id: uuid.UUID) -> Call | None:
    """The call; None where nobody knows it. Raises StoreUnavailable."""
    with store_errors(), engine.connect() as connection:
        row = connection.execute(_CALL.where(calls.c.id == call_id)).one_or_none()
    return None if row is None else to_call(row)
