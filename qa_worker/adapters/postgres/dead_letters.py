"""Dead letters: written in the transaction in which something died, so that nothing dies without one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.tables import dead_letters


@dataclass(frozen=True, slots=True)
class Letter:
    """What died: `kind` and `ref_id` say what it was, `payload` holds ids only."""

    kind: str
    ref_id: uuid.UUID
    workspace_id: uuid.UUID
    queue: str
    task: str
    reason: str
    attempts: int
    first_error: str
    last_error: str
    endpoint_id: uuid.UUID | None = None
    payload: dict[str, str] = field(default_factory=dict)


def write_letters(connection: Connection, letters: Sequence[Letter]) -> None:
    """Store letters; what has an open one already gets no second one."""
    if not letters:
        return
    rows = [
        {
            "id": uuid.uuid4(),
            "kind": letter.kind,
            "ref_id": letter.ref_id,
            "workspace_id": letter.workspace_id,
            "endpoint_id": letter.endpoint_id,
            "queue": letter.queue,
            "task": letter.task,
            "reason": letter.reason,
            "attempts": letter.attempts,
            "first_error": letter.first_error,
            "last_error": letter.last_error,
            "payload": letter.payload,
            "died_at": func.clock_timestamp(),
        }
        for letter in letters
    ]
    connection.execute(insert(dead_letters).values(rows).on_conflict_do_nothing())
