"""One thread for each process that extends the leases of all its work."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from sqlalchemy import Engine, Table
from sqlalchemy.exc import SQLAlchemyError

from qa_worker.adapters.postgres.engine import store_errors
from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.adapters.postgres.work import WorkRows
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.work import Lease

log = structlog.get_logger(__name__)

BEATS_PER_LEASE = 3


class LeaseKeeper:
    """Implements the port `Leases` for the work of one table. The thread starts with the first lease, ends with `close`."""

    def __init__(self, engine: Engine, *, lease_s: float, table: Table = evaluations) -> None:
        self._engine = engine
        self._table = table
        self._lease_s = lease_s
        self._held: set[uuid.UUID] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def hold(self, leases: Sequence[Lease]) -> Iterator[None]:
        """See the port."""
        tokens = {lease.token for lease in leases}
        with self._lock:
            self._held |= tokens
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held -= tokens

    def close(self) -> None:
        """Stop extending. Leases that are still held run out by themselves."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _keep(self) -> None:
        while not self._stop.wait(self._lease_s / BEATS_PER_LEASE):
            with self._lock:
                tokens = list(self._held)
            if tokens:
                self._extend(tokens)

    def _extend(self, tokens: list[uuid.UUID]) -> None:
        try:
            with store_errors(), self._engine.begin() as connection:
                WorkRows(connection, self._table).extend(tokens, lease_s=self._lease_s)
        except (StoreUnavailable, SQLAlchemyError):
            # The next beat tries again; two may fail before a lease is lost.
            log.warning("leases_not_extended", count=len(tokens))
