"""Scenarios, agents under test, suite runs, runs and their turns: see `qa_worker.domain.scenario` and `.run`."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from qa_worker.adapters.postgres.tables.columns import (
    count_column,
    created_at,
    id_column,
    metadata,
    text_column,
    usage_columns,
    when,
    work_columns,
)

# Scenarios, agents under test, suite runs, runs and their turns: see `qa_worker.domain.scenario` and `.run`.
scenarios = Table(
    "scenarios",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("ref", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
)

# A secret stands in `content` only as the name of an environment variable.
agents_under_test = Table(
    "agents_under_test",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("ref", Text, nullable=False),
    text_column("version"),
    Column("kind", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
)

suite_runs = Table(
    "suite_runs",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_under_test_id", Uuid, ForeignKey("agents_under_test.id"), nullable=False),
    Column("name", Text, nullable=False),
    text_column("label"),
    # NULL: the judge of the settings.
    Column("judge", Text, nullable=True),
    Column("max_parallel", Integer, nullable=False),
    Column("repeats", Integer, nullable=True),
    Column("state", Text, nullable=False, server_default="running"),
    text_column("created_by"),
    when("cancel_requested_at"),
    when("completed_at"),
    created_at(),
    CheckConstraint("state IN ('running', 'done', 'cancelled')", name="state"),
    CheckConstraint("(state = 'running') = (completed_at IS NULL)", name="completed_at"),
    CheckConstraint("judge IN ('claude', 'rules')", name="judge"),
    CheckConstraint("max_parallel > 0", name="max_parallel"),
    Index("ix_suite_runs_running", "created_at", postgresql_where=text("state = 'running'")),
    Index("ix_suite_runs_workspace_id_created_at", "workspace_id", text("created_at DESC")),
)

runs = Table(
    "runs",
    metadata,
    id_column(),
    Column("suite_run_id", Uuid, ForeignKey("suite_runs.id", ondelete="CASCADE"), nullable=False),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("scenario_id", Uuid, ForeignKey("scenarios.id"), nullable=False),
    Column("agent_under_test_id", Uuid, ForeignKey("agents_under_test.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("repeat", Integer, nullable=False),
    # From 1: runs of the same repeat, of which the simulated caller spoilt all but the last.
    Column("attempt_no", Integer, nullable=False, server_default="1"),
    *work_columns(),
    # The final state of the run. Before it the state of the work says all: pending, or running.
    Column("outcome", Text, nullable=True),
    Column("completion", Text, nullable=True),
    text_column("message"),
    # Seconds on the conversation's own clock, and real seconds that workers spent on it.
    Column("clock_s", Double, nullable=False, server_default="0"),
    Column("played_s", Double, nullable=False, server_default="0"),
    count_column("turn_count"),
    # Attempts since the last turn that got an answer nobody could use.
    count_column("unreadable_count"),
    # The model that played the caller, or "script".
    text_column("caller"),
    when("cancel_requested_at"),
    Column("call_id", Uuid, ForeignKey("calls.id"), nullable=True),
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id"), nullable=True),
    when("begun_at"),
    when("revived_at"),
    when("completed_at"),
    # Of the conversation: caller and agent. The judge's are those of the evaluation.
    *usage_columns(),
    created_at(),
    UniqueConstraint("suite_run_id", "scenario_id", "repeat", "attempt_no"),
    CheckConstraint("state IN ('pending', 'queued', 'running', 'done', 'dead')", name="state"),
    CheckConstraint("lane IN ('live', 'backlog')", name="lane"),
    CheckConstraint("(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("outcome IN ('passed', 'failed', 'error', 'invalid', 'cancelled')", name="outcome"),
    CheckConstraint("(state IN ('done', 'dead')) = (outcome IS NOT NULL)", name="outcome_is_final"),
    CheckConstraint("state <> 'dead' OR outcome IN ('error', 'cancelled')", name="dead_measured_nothing"),
    CheckConstraint("(outcome IS NULL) = (completed_at IS NULL)", name="completed_at"),
    Index("ix_runs_due", "suite_run_id", "not_before", "position", postgresql_where=text("state = 'pending'")),
    Index("ix_runs_queued", "queued_at", postgresql_where=text("state = 'queued'")),
    Index("ix_runs_running", "lease_until", postgresql_where=text("state = 'running'")),
    Index("ix_runs_in_flight", "suite_run_id", postgresql_where=text("state IN ('queued', 'running')")),
)

run_turns = Table(
    "run_turns",
    metadata,
    Column("run_id", Uuid, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("role", Text, nullable=False),
    # The turn as it was heard, what was cut off, the caller's line as written: see `qa_worker.domain.playback`.
    Column("content", JSONB, nullable=False),
    *usage_columns(),
    created_at(),
    CheckConstraint("role IN ('caller', 'agent', 'tool')", name="role"),
    Index("ix_run_turns_created_at", "created_at", postgresql_using="brin"),
)
