"""Work that was given up on and waits for a person: what it was, what became of it, which letters are meant."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class LetterKind(StrEnum):
    """What died."""

    ALERT = "alert"
    """A delivery of an alert to one endpoint."""
    EVALUATION = "evaluation"
    RUN = "run"
    MESSAGE = "message"
    """A message that nobody could read, or that named a task nobody knows."""


class LetterState(StrEnum):
    """What became of it. Only an open letter waits for somebody."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; None is all of them. `ids` and `state` None choose by the rest alone.

    `endpoint` is a name, which may be used in several workspaces; `since` is included, `until` isn't. `workspace` is a
    name, too; letters of unreadable messages belong to none.
    """

    kind: LetterKind | None = None
    queue: str | None = None
    workspace: str | None = None
    endpoint: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[uuid.UUID, ...] | None = None
    state: LetterState | None = LetterState.OPEN
