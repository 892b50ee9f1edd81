"""The errors of the project, one small tree.

QaError
+-- InvalidInput          a record that cannot be accepted: names the field and the fix
+-- CallConflict          the same id was handed over before with another content
+-- StoreUnavailable      PostgreSQL or the broker is out of reach: nothing could be written
|   +-- Collided          two transactions stood in each other's way and this one gave in: do it again
+-- LeaseLost             someone else owns the work by now; this result must not be recorded
"""

from __future__ import annotations

from dataclasses import dataclass


class QaError(Exception):
    """Root of every error that this project raises on purpose."""


@dataclass
class InvalidInput(QaError):
    """One record that cannot be accepted. `field` is a path such as `turns[3].role`."""

    field: str
    problem: str
    fix: str
    source: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.source, self.line) if part is not None)
        return f"{where + ': ' if where else ''}{self.field}: {self.problem}. {self.fix}"


@dataclass
class CallConflict(QaError):
    """The id was handed over before, with another content."""

    ref: str

    def __str__(self) -> str:
        return f"id: call {self.ref!r} was accepted before with another content. Give the changed call an id of its own"


class StoreUnavailable(QaError):
    """PostgreSQL or the broker is out of reach, so that nothing could be written."""


class Collided(StoreUnavailable):
    """Two transactions stood in each other's way and PostgreSQL ended this one: it can be done again at once."""


class LeaseLost(QaError):
    """The lease ran out and the work has another owner: this result must be dropped."""
