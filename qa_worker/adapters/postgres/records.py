"""Writes results: many threads' in one transaction, because a commit costs the same for one row and for fifty."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from sqlalchemy.exc import IntegrityError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_exponential_jitter,
)

from qa_worker.application.ports import UnitOfWork, UnitOfWorkFactory
from qa_worker.domain.errors import LeaseLost, StoreUnavailable

Write = Callable[[UnitOfWork], None]

_TRIES = 3
_AT_MOST = 64


class DirectRecords:
    """Implements the port `Records`: a transaction for each.

    A result that was paid for is not given up because the database is away for a moment: it is written again for up to
    `patience_s`. Doing it twice is safe, because the lease's token fences it.
    """

    def __init__(self, uow: UnitOfWorkFactory, *, patience_s: float = 0.0) -> None:
        self._uow = uow
        self._patience_s = patience_s

    def write(self, what: Write) -> None:
        """See the port."""
        patiently(lambda: self._once(what), patience_s=self._patience_s)

    def submit(self, what: Write) -> Future[None]:
        """See the port."""
        written: Future[None] = Future()
        try:
            self.write(what)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
            written.set_exception(error)
        else:
            written.set_result(None)
        return written

    def _once(self, what: Write) -> None:
        with self._uow() as work:
            what(work)
            work.commit()


def patiently(write: Callable[[], None], *, patience_s: float) -> None:
    """Write until it is written: for up to `patience_s` of a database that is away.

    Two evaluations of one call that end at once take turns on the index of the current one: the second is done again.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type((StoreUnavailable, IntegrityError)),
        wait=wait_exponential_jitter(multiplier=0.05, max=3),
        stop=stop_all(stop_after_attempt(_TRIES), stop_after_delay(patience_s)),
        reraise=True,
    ):
        with attempt:
            write()


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
        self._waiting: queue.SimpleQueue[tuple[Write, Future[None]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, what: Write) -> None:
        """See the port."""
        self.submit(what).result()

    def submit(self, what: Write) -> Future[None]:
        """See the port."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="records", daemon=True)
                self._thread.start()
        written: Future[None] = Future()
        self._waiting.put((what, written))
        return written

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
            last = self._gather(group)
            self._write(group)
            if last:
                return

    def _gather(self, group: list[tuple[Write, Future[None]]]) -> bool:
        """Take what comes within the window; True when the end was among it."""
        until = time.monotonic() + self._window_s
        while len(group) < _AT_MOST:
            try:
                item = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if item is None:
                return True
            group.append(item)
        return False

    def _write(self, group: list[tuple[Write, Future[None]]]) -> None:
        lost: dict[int, LeaseLost] = {}
        try:
            patiently(lambda: self._together(group, lost), patience_s=self._patience_s)
        except StoreUnavailable as error:
            for _, written in group:
                written.set_exception(error)
        except Exception:  # noqa: BLE001 - each is written again, alone, and raises its own fault where it was waited for
            self._write_alone(group)
        else:
            for number, (_, written) in enumerate(group):
                _settle(written, lost.get(number))

    def _together(self, group: list[tuple[Write, Future[None]]], lost: dict[int, LeaseLost]) -> None:
        lost.clear()
        with self._uow() as work:
            for number, (what, _) in enumerate(group):
                try:
                    what(work)
                except LeaseLost as error:
                    lost[number] = error
            work.commit()

    def _write_alone(self, group: list[tuple[Write, Future[None]]]) -> None:
        for what, written in group:
            _settle(written, self._alone.submit(what).exception())


def _settle(written: Future[None], fault: BaseException | None) -> None:
    if fault is None:
        written.set_result(None)
    else:
        written.set_exception(fault)
