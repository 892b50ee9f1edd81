"""What tests of dead letters are made of: a queue that does as it is told, letters, replays."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

from qa_worker.adapters.postgres.tables import dead_letters
from qa_worker.application.dead_letters import Notice, Replay, UnreadMessage
from qa_worker.application.replay_dead_letter import Replaying, replay_dead_letters
from qa_worker.application.unread_messages import UNKNOWN_TASK, Fault, unread_message
from qa_worker.domain.dead_letter import Choice, LetterKind
from qa_worker.domain.endpoint import HealthRules
from qa_worker.domain.errors import StoreUnavailable
from tests.conftest import UnitsOfWork

EVERYTHING = Choice()
DIED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


@dataclass
class MemoryQueue:
    """Implements the port `LetterQueue`, first in, first out. `away` is a broker that can't be reached."""

    lying: list[Notice | UnreadMessage] = field(default_factory=list)
    away: bool = False

    def publish(self, notices: Sequence[Notice]) -> None:
        self._reach()
        self.lying.extend(notices)

    def keep(self, message: UnreadMessage) -> None:
        self._reach()
        self.lying.append(message)

    def depth(self) -> int:
        self._reach()
        return len(self.lying)

    def take(self, limit: int, settle: Callable[[Sequence[Notice | UnreadMessage]], None]) -> int:
        self._reach()
        taken = self.lying[:limit]
        if taken:
            settle(taken)
        del self.lying[:limit]
        return len(taken)

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("no broker")


def no_database() -> Any:
    """A unit of work where PostgreSQL is away."""
    raise StoreUnavailable("no database")


def a_message(
    task: str = "no-such-task", *, queue: str = "send-alert", fault: Fault | None = None, **kwargs: Any
) -> UnreadMessage:
    """A message to a task that nobody knows."""
    body = json.dumps([[], kwargs, {}]).encode()
    unknown = Fault(UNKNOWN_TASK, "This version of the program knows no task of this name.")
    return unread_message(queue=queue, task=task, body=body, fault=fault or unknown, at=DIED_AT)


def a_notice(reason: str) -> Notice:
    """What lies on the queue for a dead alert."""
    died = uuid.uuid4()
    return Notice(
        letter_id=uuid.uuid4(),
        announcement=uuid.uuid4(),
        said_at=DIED_AT,
        kind=LetterKind.ALERT,
        reason=reason,
        queue="send-alert",
        task="send-alert",
        ref_id=died,
        workspace_id=uuid.uuid4(),
        endpoint_id=uuid.uuid4(),
        attempts=7,
        first_error="The receiver answered 503.",
        last_error="The receiver answered 500.",
        died_at=DIED_AT,
        deaths=1,
        again_of=None,
        payload={"delivery_id": str(died)},
    )


def replaying(uow: UnitsOfWork, **changes: Any) -> Replaying:
    """What replays need, without any pause."""
    given: dict[str, Any] = {"pause": lambda _seconds: None, "max_attempts": 3, "send_now": uow.send, **changes}
    return Replaying(
        uow=uow, rules=HealthRules(in_flight=2), delivery_limit=50, in_flight_limit=50, run_limit=50, **given
    )


def replay(uow: UnitsOfWork, choice: Choice = EVERYTHING, *, by: str = "ops", limit: int = 100) -> list[Replay]:
    """Replay what is chosen; what became of each."""
    return list(replay_dead_letters(choice=choice, limit=limit, rate=5, by=by, replaying=replaying(uow)))


def letters(uow: UnitsOfWork) -> list[Any]:
    """All letters as they are stored, the first to die first."""
    with uow.engine.connect() as connection:
        return list(connection.execute(select(dead_letters).order_by(dead_letters.c.died_at, dead_letters.c.id)))


def add_letter(uow: UnitsOfWork, **values: Any) -> uuid.UUID:
    """A letter whose work nobody looks at."""
    letter_id = uuid.uuid4()
    given = {"id": letter_id, "kind": "message", "ref_id": uuid.uuid4(), "died_at": DIED_AT, **values}
    with uow.engine.begin() as connection:
        connection.execute(insert(dead_letters).values(given))
    return letter_id
