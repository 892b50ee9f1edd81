"""Dead letters: written in the transaction in which something died, so that nothing dies without one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

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
            **dying_again(letter.kind, letter.ref_id),
        }
        for letter in letters
    ]
    connection.execute(insert(dead_letters).values(rows).on_conflict_do_nothing())


def dying_again(kind: str, ref_id: uuid.UUID) -> dict[str, ColumnElement[Any]]:
    """The columns that tell of the letter whose replay this one died of; without one this is its first death."""
    before = dead_letters.alias("before")
    latest = (
        select(before.c.id, before.c.deaths)
        .where(before.c.kind == kind, before.c.replay_ref == ref_id)
        .order_by(before.c.settled_at.desc())
        .limit(1)
        .subquery()
    )
    deaths = func.coalesce(select(latest.c.deaths).scalar_subquery(), 0) + 1
    return {"again_of": select(latest.c.id).scalar_subquery(), "deaths": deaths}
