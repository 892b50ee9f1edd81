"""Dead letters as they are found, settled and shown on their queue. What dies writes its own: see `dead_letters`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from qa_worker.adapters.postgres.dead_letters import dying_again
from qa_worker.adapters.postgres.tables import dead_letters, deliveries, endpoints, workspaces
from qa_worker.application.alert_queries import LetterFigures
from qa_worker.application.dead_letters import Notice, OpenLetter, Settlement, UnreadMessage
from qa_worker.application.unread_messages import payload_of
from qa_worker.domain.dead_letter import Choice, LetterKind, LetterState
from qa_worker.domain.work import Lane, WorkState

_NOW = func.clock_timestamp()
_OPEN = dead_letters.c.state == LetterState.OPEN.value


class PostgresDeadLetters:
    """Implements the port `DeadLetters` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_message(self, message: UnreadMessage) -> None:
        """See the port."""
        columns = dead_letters.c
        values = {
            "id": uuid.uuid4(),
            "kind": LetterKind.MESSAGE.value,
            "ref_id": message.ref_id,
            "queue": message.queue,
            "task": message.task,
            "reason": message.reason,
            "attempts": 1,
            "first_error": message.problem,
            "last_error": message.problem,
            "payload": payload_of(message),
            "died_at": message.died_at,
            **dying_again(LetterKind.MESSAGE.value, message.ref_id),
        }
        self._connection.execute(
            insert(dead_letters)
            .values(values)
            .on_conflict_do_update(
                index_elements=[columns.kind, columns.ref_id],
                index_where=_OPEN,
                set_={"attempts": columns.attempts + 1, "last_error": message.problem},
            )
        )

    def choose(self, choice: Choice, *, limit: int) -> Sequence[uuid.UUID]:
        """See the port."""
        chosen = select(dead_letters.c.id).where(matching(choice)).order_by(dead_letters.c.died_at, dead_letters.c.id)
        return list(self._connection.execute(chosen.limit(limit)).scalars())

    def count(self, choice: Choice) -> int:
        """See the port."""
        counted = select(func.count()).select_from(dead_letters).where(matching(choice))
        return int(self._connection.execute(counted).scalar_one())

    def settle(self, letter_id: uuid.UUID, settlement: Settlement) -> OpenLetter | None:
        """See the port."""
        row = self._connection.execute(
            update(dead_letters)
            .where(dead_letters.c.id == letter_id, _OPEN)
            .values(state=settlement.state.value, settled_at=_NOW, settled_by=settlement.by, note=settlement.note)
            .returning(dead_letters)
        ).one_or_none()
        if row is None:
            return None
        return OpenLetter(row.id, LetterKind(row.kind), row.ref_id, row.queue, row.task, row.payload)

    def started(self, letter_id: uuid.UUID, replay_ref: uuid.UUID) -> None:
        """See the port."""
        self._connection.execute(
            update(dead_letters).where(dead_letters.c.id == letter_id).values(replay_ref=replay_ref)
        )

    def redeliver(self, delivery_id: uuid.UUID, *, max_attempts: int) -> uuid.UUID | None:
        """See the port."""
        columns = deliveries.c
        # What went wrong once goes behind what was raised just now.
        again = select(
            literal(uuid.uuid4()),
            columns.alert_id,
            columns.endpoint_id,
            columns.workspace_id,
            columns.message_id,
            columns.id,
            literal(max_attempts),
            literal(Lane.BACKLOG.value),
        ).where(columns.id == delivery_id, columns.state == WorkState.DEAD.value)
        names = ["id", "alert_id", "endpoint_id", "workspace_id", "message_id", "replay_of", "max_attempts", "lane"]
        return self._connection.execute(
            insert(deliveries).from_select(names, again).on_conflict_do_nothing().returning(columns.id)
        ).scalar_one_or_none()

    def to_announce(self, *, limit: int) -> Sequence[Notice]:
        """See the port."""
        columns = dead_letters.c
        chosen = (
            select(columns.id)
            .where(_OPEN, columns.announced_at.is_(None))
            .order_by(columns.died_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        rows = self._connection.execute(
            update(dead_letters)
            .where(columns.id.in_(select(chosen.c.id)))
            .values(announcement=func.gen_random_uuid())
            .returning(dead_letters, _NOW.label("said_at"))
        ).all()
        return [_notice(row) for row in sorted(rows, key=lambda row: row.died_at)]

    def announced(self, notices: Sequence[Notice]) -> None:
        """See the port."""
        if notices:
            self._connection.execute(_ANNOUNCED, [_pair(notice) for notice in notices])

    def restore(self, notices: Sequence[Notice], *, since: datetime) -> int:
        """See the port."""
        given = {notice.letter_id: notice for notice in notices if notice.said_at >= since}
        known = set(
            self._connection.execute(
                select(dead_letters.c.id).where(dead_letters.c.id == func.any(list(given)))
            ).scalars()
        )
        # In one order for everybody: sweeps that restore at once wait for each other, but never in a circle.
        lost = [_restored(given[letter_id]) for letter_id in sorted(given.keys() - known)]
        if not lost:
            return 0
        restored = insert(dead_letters).values(lost).on_conflict_do_nothing().returning(dead_letters.c.id)
        return len(self._connection.execute(restored).all())

    def recall(self, notices: Sequence[Notice]) -> int:
        """See the port."""
        given = {notice.letter_id: notice.announcement for notice in notices}
        columns = dead_letters.c
        rows = self._connection.execute(
            select(columns.id, columns.announcement).where(columns.id == func.any(list(given)), _OPEN)
        )
        current = [row.id for row in rows if row.announcement == given[row.id]]
        self._connection.execute(update(dead_letters).where(columns.id == func.any(current)).values(announced_at=None))
        return len(current)

    def recall_all(self) -> int:
        """See the port."""
        known = dead_letters.c.announced_at.is_not(None)
        return self._connection.execute(update(dead_letters).where(_OPEN, known).values(announced_at=None)).rowcount

    def on_the_queue(self) -> int:
        """See the port."""
        known = _OPEN & dead_letters.c.announced_at.is_not(None)
        return int(self._connection.execute(select(func.count()).where(known)).scalar_one())


_OF_BOTH = tuple(
    one.name for one in fields(Notice) if one.name in dead_letters.c and one.name not in ("announcement", "kind")
)
_ANNOUNCED = (
    update(dead_letters)
    .where(dead_letters.c.id == bindparam("letter"), dead_letters.c.announcement == bindparam("current"))
    .values(announced_at=_NOW)
)


def matching(choice: Choice) -> ColumnElement[bool]:
    """The condition that these letters fulfil."""
    columns = dead_letters.c
    of_workspace = select(workspaces.c.id).where(workspaces.c.name == choice.workspace)
    of_endpoint = select(endpoints.c.id).where(endpoints.c.name == choice.endpoint)
    conditions = (
        (choice.kind, columns.kind == choice.kind),
        (choice.queue, columns.queue == choice.queue),
        (choice.reason, columns.reason == choice.reason),
        (choice.state, columns.state == choice.state),
        (choice.since, columns.died_at >= literal(choice.since, columns.died_at.type)),
        (choice.until, columns.died_at < literal(choice.until, columns.died_at.type)),
        (choice.ids, columns.id == func.any(list(choice.ids or ()))),
        (choice.workspace, columns.workspace_id.in_(of_workspace)),
        (choice.endpoint, columns.endpoint_id.in_(of_endpoint)),
    )
    return and_(true(), *(condition for given, condition in conditions if given is not None))


def letter_figures(connection: Connection, *which: ColumnElement[bool]) -> LetterFigures:
    """Depth and age of the open letters of which this is true."""
    columns = dead_letters.c
    query = (
        select(
            columns.kind,
            func.count().label("n"),
            func.count().filter(columns.announced_at.is_(None)).label("unannounced"),
            func.extract("epoch", _NOW - func.min(columns.died_at)).label("age_s"),
        )
        .where(_OPEN, *which)
        .group_by(columns.kind)
    )
    rows = connection.execute(query).all()
    return LetterFigures(
        {row.kind: row.n for row in rows},
        max((float(row.age_s) for row in rows), default=None),
        sum(row.unannounced for row in rows),
    )


def _notice(row: Row[Any]) -> Notice:
    same = {name: getattr(row, name) for name in _OF_BOTH}
    return Notice(
        letter_id=row.id, announcement=row.announcement, said_at=row.said_at, kind=LetterKind(row.kind), **same
    )


def _restored(notice: Notice) -> dict[str, Any]:
    """The row of a letter. A workspace or an endpoint that the database has lost, too, takes no letter along."""
    workspace = select(workspaces.c.id).where(workspaces.c.id == notice.workspace_id).scalar_subquery()
    endpoint = select(endpoints.c.id).where(endpoints.c.id == notice.endpoint_id).scalar_subquery()
    same = {name: getattr(notice, name) for name in _OF_BOTH}
    return {
        **same,
        "id": notice.letter_id,
        "announcement": notice.announcement,
        "kind": notice.kind.value,
        "workspace_id": workspace,
        "endpoint_id": endpoint,
    }


def _pair(notice: Notice) -> dict[str, uuid.UUID]:
    return {"letter": notice.letter_id, "current": notice.announcement}
