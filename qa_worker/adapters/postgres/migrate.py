"""Migrations, run by us: the same revision files that `alembic` on the command line uses."""

from __future__ import annotations

from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from qa_worker.adapters.postgres.engine import store_errors

# Any fixed number: it only has to be the same for all who migrate at once.
_LOCK = 7_164_213


def config(url: str) -> Config:
    """Alembic's configuration for the database at `url`."""
    made = Config()
    made.set_main_option("script_location", str(resources.files("migrations")))
    made.attributes["url"] = url
    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema up to `revision`. Two at once wait for each other. Raises StoreUnavailable."""
    engine = create_engine(url, hide_parameters=True, connect_args={"connect_timeout": 5})
    try:
        with store_errors(), engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
            with store_errors():
                command.upgrade(config(url), revision)
    finally:
        engine.dispose()


def revisions(engine: Engine, url: str) -> tuple[str | None, str | None]:
    """(the database's revision, the newest one that this code knows). Raises StoreUnavailable."""
    with store_errors(), engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(config(url)).get_current_head()
