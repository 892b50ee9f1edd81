"""What came in, and what it is graded by: workspaces, agents, calls, rubrics."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
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
from sqlalchemy.dialects.postgresql import JSONB

from qa_worker.adapters.postgres.tables.columns import count_column, created_at, id_column, metadata, text_column, when

workspaces = Table(
    "workspaces",
    metadata,
    id_column(),
    Column("name", Text, nullable=False, unique=True),
    # NULL: the cap that the settings give each workspace.
    Column("daily_budget_micro_usd", BigInteger, nullable=True),
    created_at(),
)

agents = Table(
    "agents",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("ref", Text, nullable=False),
    text_column("name"),
    created_at(),
    UniqueConstraint("workspace_id", "ref"),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    id_column(),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    text_column("version"),
    text_column("instructions"),
    Column("tools", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    created_at(),
    UniqueConstraint("agent_id", "fingerprint"),
)

calls = Table(
    "calls",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=False),
    Column("agent_version_id", Uuid, ForeignKey("agent_versions.id"), nullable=False),
    Column("ref", Text, nullable=False),
    Column("external_id", Text, nullable=True),
    Column("fingerprint", Text, nullable=False),
    when("started_at"),
    Column("transcript", JSONB, nullable=False),
    Column("turn_count", Integer, nullable=False),
    Column("expected", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # Set with the call's first evaluation row: a call without it has not been asked about yet.
    when("admitted_at"),
    created_at(),
    UniqueConstraint("workspace_id", "ref"),
    Index("ix_calls_workspace_id_created_at", "workspace_id", text("created_at DESC")),
    Index("ix_calls_agent_id_created_at", "agent_id", text("created_at DESC")),
    Index("ix_calls_workspace_id_external_id", "workspace_id", "external_id"),
    Index("ix_calls_unadmitted", "created_at", postgresql_where=text("admitted_at IS NULL")),
)

rubrics = Table(
    "rubrics",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
)

# Which rubric holds: one row for a workspace (agent_id NULL), one for each agent that has its own.
default_rubrics = Table(
    "default_rubrics",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("rubric_id", Uuid, ForeignKey("rubrics.id"), nullable=False),
    created_at(),
    UniqueConstraint("workspace_id", "agent_id", postgresql_nulls_not_distinct=True),
)

rubric_versions = Table(
    "rubric_versions",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("rubric_id", Uuid, ForeignKey("rubrics.id"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("judge", Text, nullable=False),
    text_column("model"),
    text_column("effort"),
    count_column("max_tokens"),
    Column("votes", SmallInteger, nullable=False, server_default="1"),
    Column("borderline", SmallInteger, nullable=False, server_default="0"),
    text_column("prompt_version"),
    created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
    CheckConstraint("judge IN ('claude', 'rules')", name="judge"),
)
