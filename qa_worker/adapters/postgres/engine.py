"""One engine for each process, and the translation of "the database is away" into our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from qa_worker.domain.errors import StoreUnavailable


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
            "application_name": application_name,
            "options": "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000 -c timezone=utc",
        },
    )


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn lost connections, refused ones and a used-up pool into StoreUnavailable."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise StoreUnavailable(f"PostgreSQL can't be used right now: {type(error).__name__}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailable("the connection to PostgreSQL was lost") from error
        raise
