"""What a use case returns. Only `tasks/base.py` knows what Celery does with each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished and recorded. `detail` is a short code, such as the verdict."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was to be done, and `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryAt:
    """This attempt failed; the row waits until `when`. The attempt counts."""

    when: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Parked:
    """The work could not be tried (limit, open gate, spent budget); the row waits. The attempt doesn't count."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Given up on, visibly, for the reason given."""

    reason: str


Outcome = Done | Skipped | RetryAt | Parked | Dead
