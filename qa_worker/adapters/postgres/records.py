"""Writes results: many threads' in one transaction, because a commit costs the same for one row and for fifty."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_exponential_jitter,
)

from qa_worker.adapters.together import gather
from qa_worker.application.ports import Held, UnitOfWork, UnitOfWorkFactory
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.work import Lease

_T = TypeVar("_T")
Write = Callable[[UnitOfWork], None]

_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Item:
    """What is to be written, while which lease is ours, and who waits for it."""

    what: Write
    lease: Lease | None
    written: Future[None] = field(default_factory=Future)


class DirectRecords:
    """Implements the port `Records`: a transaction for each.

    A result that was paid for is not given up because the database is away for a moment: it is written again for up to
    `patience_s`. Doing it twice is safe, because the lease's token fences it.
    """

    def __init__(self, uow: UnitOfWorkFactory, *, patience_s: float = 0.0) -> None:
        self._uow = uow
        self._patience_s = patience_s

    def write(self, what: Write, *, lease: Lease | None = None) -> None:
        """See the port."""
        item = _Item(what, lease)
        lost = patiently(lambda: _together(self._uow, [item]), patience_s=self._patience_s)
        if lost:
            raise lost[0]

    def submit(self, what: Write, *, lease: Lease | None = None) -> Future[None]:
        """See the port."""
        written: Future[None] = Future()
        try:
            self.write(what, lease=lease)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
            written.set_exception(error)
        else:
            written.set_result(None)
        return written


def patiently(write: Callable[[], _T], *, patience_s: float) -> _T:
    """Write until it is written: for up to `patience_s` of a database that is away.

    Two evaluations of one call that end at once take turns on the index of the current one: the second is done again.
    """
    return Retrying(
        retry=retry_if_exception_type((StoreUnavailable, IntegrityError)),
        wait=wait_exponential_jitter(multiplier=0.05, max=3),
        stop=stop_all(stop_after_attempt(_TRIES), stop_after_delay(patience_s)),
        reraise=True,
    )(write)


def _together(uow: UnitOfWorkFactory, items: Sequence[_Item]) -> dict[int, LeaseLost]:
    """Write all of these in one transaction, but for those whose lease was lost: they are told by their numbers."""
    lost: dict[int, LeaseLost] = {}
    with uow() as work:
        leases = [item.lease for item in items if item.lease is not None]
        held = work.evaluations.hold(leases) if leases else Held()
        for number, item in enumerate(items):
            lease = item.lease
            if lease is None or lease.token in held.mine:
                item.what(work)
            elif lease.token not in held.written:
                lost[number] = LeaseLost(str(lease.work_id))
        work.commit()
    return lost


class GroupedRecords:
    """Implements the port `Records`: what comes within `window_s` shares one transaction, written by one thread.

    A result whose lease was lost has written nothing (that is found out first), so the others of its group go on. Any
    other fault rolls the group back, and each of its results is written alone.
    """

    def __init__(self, uow: UnitOfWorkFactory, *, window_s: float, patience_s: float) -> None:
        self._uow = uow
        self._window_s = window_s
        self._patience_s = patience_s
        self._alone = DirectRecords(uow, patience_s=patience_s)
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, what: Write, *, lease: Lease | None = None) -> None:
        """See the port."""
        self.submit(what, lease=lease).result()

    def submit(self, what: Write, *, lease: Lease | None = None) -> Future[None]:
        """See the port."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="records", daemon=True)
                self._thread.start()
        item = _Item(what, lease)
        self._waiting.put(item)
        return item.written

    def close(self) -> None:
        """Write what waits, then end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout=30)

    def _serve(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            last = gather(self._waiting, group, until=time.monotonic() + self._window_s)
            self._write(group)
            if last:
                return

    def _write(self, group: list[_Item]) -> None:
        try:
            lost = patiently(lambda: _together(self._uow, group), patience_s=self._patience_s)
        except StoreUnavailable as error:
            for item in group:
                item.written.set_exception(error)
        except Exception:  # noqa: BLE001 - each is written again, alone, and raises its own fault where it was waited for
            self._write_alone(group)
        else:
            for number, item in enumerate(group):
                _settle(item.written, lost.get(number))

    def _write_alone(self, group: list[_Item]) -> None:
        for item in group:
            _settle(item.written, self._alone.submit(item.what, lease=item.lease).exception())


def _settle(written: Future[None], fault: BaseException | None) -> None:
    if fault is None:
        written.set_result(None)
    else:
        written.set_exception(fault)
