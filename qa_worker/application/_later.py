"""Results that are on their way: the next one is made while they are written, and one commit can hold many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from qa_worker.application.ports import Records, UnitOfWork
from qa_worker.domain.work import Lease


class Later:
    """Implements the port `Records`: `write` hands over, and `wait` says when it has arrived."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._begun: list[Future[None]] = []

    def write(self, what: Callable[[UnitOfWork], None], *, lease: Lease | None = None) -> None:
        """See the port, but for the waiting."""
        self._begun.append(self._records.submit(what, lease=lease))

    def submit(self, what: Callable[[UnitOfWork], None], *, lease: Lease | None = None) -> Future[None]:
        """See the port."""
        return self._records.submit(what, lease=lease)

    def wait(self) -> None:
        """Until everything is committed. Raises what went wrong."""
        for begun in self._begun:
            begun.result()
