"""What was spent, and what may be: see `qa_worker.adapters.postgres.budget`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, ForeignKey, Table, Uuid, text

from qa_worker.adapters.postgres.tables.columns import metadata

# What requests that ended on a day (UTC) have cost. Written with what it is the sum of, in the same transaction: the
# attempts of evaluations and the turns of runs.
daily_spending = Table(
    "daily_spending",
    metadata,
    Column("day", Date, primary_key=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), primary_key=True),
    Column("micro_usd", BigInteger, nullable=False),
)

# The cap for all workspaces together, where one was set by command: one row, or none while that of the settings holds.
overall_budget = Table(
    "overall_budget",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("daily_micro_usd", BigInteger, nullable=False),
    CheckConstraint("single", name="single"),
)
