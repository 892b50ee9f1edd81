"""Alembic's environment: the metadata of the tables and one connection, with short timeouts."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine, pool

from qa_worker.adapters.postgres.tables import metadata


def _url() -> str:
    url = context.config.attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit("DATABASE_URL is not set. Set it, or run `qa-worker db upgrade`.")
    return str(url)


def _run() -> None:
    engine = create_engine(_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    context.configure(url=_url(), target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    _run()
