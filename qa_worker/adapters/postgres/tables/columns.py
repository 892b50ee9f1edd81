"""What the tables are made of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Integer, MetaData, Text, Uuid, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_column() -> Column[Any]:
    """The primary key."""
    return Column("id", Uuid, primary_key=True)


def created_at() -> Column[Any]:
    """When the row was made."""
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def when(name: str, *, nullable: bool = True) -> Column[Any]:
    """A time."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def text_column(name: str) -> Column[Any]:
    """A text that is empty where there is none."""
    return Column(name, Text, nullable=False, server_default="")


def count_column(name: str) -> Column[Any]:
    """A number that begins at zero."""
    return Column(name, Integer, nullable=False, server_default="0")


def work_columns() -> list[Column[Any]]:
    """What makes a row a piece of work: see `qa_worker.domain.work`."""
    return [
        Column("state", Text, nullable=False, server_default="pending"),
        Column("lane", Text, nullable=False, server_default="live"),
        Column("attempt", Integer, nullable=False, server_default="0"),
        Column("max_attempts", Integer, nullable=False),
        Column("not_before", DateTime(timezone=True), nullable=False, server_default=func.now()),
        when("queued_at"),
        when("started_at"),
        when("lease_until"),
        Column("lease_token", Uuid, nullable=True),
        count_column("park_count"),
        text_column("wait_reason"),
        Column("error_kind", Text, nullable=True),
        text_column("error_code"),
        text_column("error_message"),
    ]


def usage_columns() -> list[Column[Any]]:
    """What a model used, and what that cost."""
    return [
        count_column("input_tokens"),
        count_column("cache_read_tokens"),
        count_column("cache_write_5m_tokens"),
        count_column("cache_write_1h_tokens"),
        count_column("output_tokens"),
        count_column("thinking_tokens"),
        # NULL: the price of the model isn't known. Unknown is not zero.
        Column("cost_micro_usd", BigInteger, nullable=True, server_default="0"),
    ]
