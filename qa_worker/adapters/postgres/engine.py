"""One engine for each process, and the translation of "the database is away" into our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from qa_worker.domain.errors import Collided, StoreUnavailable


def make_engine(url: str, *, pool_size: int, pool_timeout_s: float, application_name: str) -> Engine:
    """An engine with its own pool: at most `pool_size` connections, no overflow, waits `pool_timeout_s` for one.

    Parameters never appear in error texts (they hold transcripts). A statement is ended by the server after 30 s and
    an idle transaction after 60 s, so that no bug of ours holds locks for ever.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        pool_pre_ping=True,
        pool_recycle=1800,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            # A server that is gone without a word is noticed by the client within about 25 s, not after two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": application_name,
            "options": "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000 -c timezone=utc",
        },
    )


_COLLIDED = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
# Also those of a server that is being stopped, started or promoted: read_only_sql_transaction, admin_shutdown,
# crash_shutdown, cannot_connect_now.
_AWAY = frozenset({"25006", "57P01", "57P02", "57P03"})


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what isn't our fault into StoreUnavailable: lost and refused connections, a used-up pool, a deadlock."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("every connection of this process's pool is in use") from error
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        if code in _COLLIDED:
            raise Collided("two transactions stood in each other's way") from error
        if error.connection_invalidated or code in _AWAY or isinstance(error, (OperationalError, InterfaceError)):
            raise StoreUnavailable(f"PostgreSQL can't be used right now: {type(error).__name__}") from error
        raise
