"""Evaluations: the work of grading, and its results."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

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

evaluations = Table(
    "evaluations",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=False),
    Column("call_id", Uuid, ForeignKey("calls.id"), nullable=False),
    Column("rubric_version_id", Uuid, ForeignKey("rubric_versions.id"), nullable=False),
    *work_columns(),
    Column("verdict", Text, nullable=True),
    Column("overall", SmallInteger, nullable=True),
    Column("reasons", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    text_column("summary"),
    count_column("dropped_quotes"),
    Column("is_current", Boolean, nullable=False, server_default=text("false")),
    when("evaluated_at"),
    Column("evidence", JSONB, nullable=True),
    *usage_columns(),
    created_at(),
    # When somebody last asked that it begin anew: what failed before that doesn't count.
    when("revived_at"),
    UniqueConstraint("call_id", "rubric_version_id"),
    CheckConstraint("state IN ('pending', 'queued', 'running', 'done', 'dead')", name="state"),
    CheckConstraint("lane IN ('live', 'backlog', 'batch', 'run')", name="lane"),
    CheckConstraint("verdict IN ('pass', 'fail', 'needs_review', 'not_evaluated')", name="verdict"),
    CheckConstraint("overall BETWEEN 0 AND 100", name="overall"),
    CheckConstraint("(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('done', 'dead')) = (verdict IS NOT NULL)", name="verdict_is_final"),
    Index("ix_evaluations_workspace_id_created_at", "workspace_id", text("created_at DESC")),
    Index("ix_evaluations_agent_id_created_at", "agent_id", text("created_at DESC")),
    Index("ix_evaluations_due", "lane", "rubric_version_id", "not_before", postgresql_where=text("state = 'pending'")),
    Index("ix_evaluations_queued", "queued_at", postgresql_where=text("state = 'queued'")),
    Index("ix_evaluations_running", "lease_until", postgresql_where=text("state = 'running'")),
    # What a batch holds is running for hours, and is nothing that workers are busy with.
    Index(
        "ix_evaluations_in_flight",
        "workspace_id",
        postgresql_where=text("state IN ('queued', 'running') AND lane <> 'batch'"),
    ),
    Index("uq_evaluations_current", "call_id", unique=True, postgresql_where=text("is_current")),
)

evaluation_scores = Table(
    "evaluation_scores",
    metadata,
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    Column("criterion", Text, primary_key=True),
    Column("position", SmallInteger, nullable=False),
    Column("score", SmallInteger, nullable=True),
    Column("level", SmallInteger, nullable=True),
    Column("applicable", Boolean, nullable=False),
    Column("weight", Double, nullable=False),
    text_column("explanation"),
)

findings = Table(
    "findings",
    metadata,
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("criterion", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("source", Text, nullable=False),
    text_column("check"),
    Column("turn", Integer, nullable=True),
    text_column("quote"),
    text_column("explanation"),
    CheckConstraint("severity IN ('minor', 'major', 'critical')", name="severity"),
    CheckConstraint("source IN ('model', 'evidence')", name="source"),
)

attempts = Table(
    "attempts",
    metadata,
    # The lease token: one row for one claim, whatever becomes of it.
    Column("id", Uuid, primary_key=True),
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("result", Text, nullable=False),
    when("started_at", nullable=False),
    when("ended_at", nullable=False),
    Column("error_kind", Text, nullable=True),
    text_column("error_code"),
    text_column("error_message"),
    text_column("model"),
    Column("request_id", Text, nullable=True),
    text_column("raw"),
    *usage_columns(),
    CheckConstraint("result IN ('done', 'retry', 'parked', 'dead', 'abandoned')", name="result"),
    Index("ix_attempts_evaluation_id_started_at", "evaluation_id", "started_at"),
    Index("ix_attempts_ended_at", "ended_at"),
)
