"""What may still be spent, and how it is given out to batches, call by call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qa_worker.domain.call import WorkspaceId


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of the day's budgets in micro-dollars, less what open batches will cost; None is no cap.

    `each` holds for workspaces that `of` doesn't name.
    """

    overall: int | None = None
    each: int | None = None
    of: Mapping[WorkspaceId, int | None] = field(default_factory=dict)

    def is_spent(self, workspace: WorkspaceId) -> bool:
        """True where nothing is left for this workspace, be it of its own budget or of the one for all."""
        room = self.of.get(workspace, self.each)
        return any(left is not None and left <= 0 for left in (self.overall, room))


UNCAPPED = Left()
"""Nobody has a cap."""


class Purse:
    """Gives out what is left. A workspace that is refused once gets nothing more."""

    def __init__(self, left: Left) -> None:
        self._overall = left.overall
        self._each = left.each
        self._of = dict(left.of)
        self.refused: set[WorkspaceId] = {one for one, room in self._of.items() if room is not None and room <= 0}

    @property
    def empty(self) -> bool:
        """True where nobody gets anything: the budget for all workspaces is spent, or each has none."""
        return self._overall is not None and self._overall <= 0

    def take(self, workspace: WorkspaceId, micro_usd: int | None) -> bool:
        """Take what a request is estimated to cost; False where that is more than is left.

        An unknown price counts as nothing, as in the budgets themselves.
        """
        cost = micro_usd or 0
        room = self._of.get(workspace, self._each)
        if workspace in self.refused or (room is not None and (room <= 0 or cost > room)):
            self.refused.add(workspace)
            return False
        if self._overall is not None and (self._overall <= 0 or cost > self._overall):
            self._overall = 0
            return False
        if room is not None:
            self._of[workspace] = room - cost
        if self._overall is not None:
            self._overall -= cost
        return True
