"""The schema. Migrations are written by hand and checked against this by `alembic check`.

Scores are integers 0-100, money integer micro-dollars, times `timestamptz`. JSON columns hold what is only ever read
whole (a transcript, an agent's tools, evidence); whatever is queried has a column or a table.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[Any]:
    return Column("id", Uuid, primary_key=True)


def _created_at() -> Column[Any]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def _when(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _text(name: str) -> Column[Any]:
    return Column(name, Text, nullable=False, server_default="")


def _count(name: str) -> Column[Any]:
    return Column(name, Integer, nullable=False, server_default="0")


def _work_columns() -> list[Column[Any]]:
    """What makes a row a piece of work: see `qa_worker.domain.work`."""
    return [
        Column("state", Text, nullable=False, server_default="pending"),
        Column("lane", Text, nullable=False, server_default="live"),
        Column("attempt", Integer, nullable=False, server_default="0"),
        Column("max_attempts", Integer, nullable=False),
        Column("not_before", DateTime(timezone=True), nullable=False, server_default=func.now()),
        _when("queued_at"),
        _when("started_at"),
        _when("lease_until"),
        Column("lease_token", Uuid, nullable=True),
        _count("park_count"),
        _text("wait_reason"),
        Column("error_kind", Text, nullable=True),
        _text("error_code"),
        _text("error_message"),
    ]


def _usage_columns() -> list[Column[Any]]:
    return [
        _count("input_tokens"),
        _count("cache_read_tokens"),
        _count("cache_write_5m_tokens"),
        _count("cache_write_1h_tokens"),
        _count("output_tokens"),
        _count("thinking_tokens"),
        # NULL: the price of the model isn't known. Unknown is not zero.
        Column("cost_micro_usd", BigInteger, nullable=True, server_default="0"),
    ]


workspaces = Table(
    "workspaces",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    # NULL: the cap that the settings give each workspace.
    Column("daily_budget_micro_usd", BigInteger, nullable=True),
    _created_at(),
)

agents = Table(
    "agents",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("ref", Text, nullable=False),
    _text("name"),
    _created_at(),
    UniqueConstraint("workspace_id", "ref"),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    _id(),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    _text("version"),
    _text("instructions"),
    Column("tools", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    _created_at(),
    UniqueConstraint("agent_id", "fingerprint"),
)

calls = Table(
    "calls",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=False),
    Column("agent_version_id", Uuid, ForeignKey("agent_versions.id"), nullable=False),
    Column("ref", Text, nullable=False),
    Column("external_id", Text, nullable=True),
    Column("fingerprint", Text, nullable=False),
    _when("started_at"),
    Column("transcript", JSONB, nullable=False),
    Column("turn_count", Integer, nullable=False),
    Column("expected", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # Set with the call's first evaluation row: a call without it has not been asked about yet.
    _when("admitted_at"),
    _created_at(),
    UniqueConstraint("workspace_id", "ref"),
    Index("ix_calls_workspace_id_created_at", "workspace_id", text("created_at DESC")),
    Index("ix_calls_agent_id_created_at", "agent_id", text("created_at DESC")),
    Index("ix_calls_workspace_id_external_id", "workspace_id", "external_id"),
    Index("ix_calls_unadmitted", "created_at", postgresql_where=text("admitted_at IS NULL")),
)

rubrics = Table(
    "rubrics",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    _created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
)

# Which rubric holds: one row for a workspace (agent_id NULL), one for each agent that has its own.
default_rubrics = Table(
    "default_rubrics",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("rubric_id", Uuid, ForeignKey("rubrics.id"), nullable=False),
    _created_at(),
    UniqueConstraint("workspace_id", "agent_id", postgresql_nulls_not_distinct=True),
)

rubric_versions = Table(
    "rubric_versions",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("rubric_id", Uuid, ForeignKey("rubrics.id"), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("judge", Text, nullable=False),
    _text("model"),
    _text("effort"),
    _count("max_tokens"),
    _text("prompt_version"),
    _created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
    CheckConstraint("judge IN ('claude', 'rules')", name="judge"),
)

evaluations = Table(
    "evaluations",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=False),
    Column("call_id", Uuid, ForeignKey("calls.id"), nullable=False),
    Column("rubric_version_id", Uuid, ForeignKey("rubric_versions.id"), nullable=False),
    *_work_columns(),
    Column("verdict", Text, nullable=True),
    Column("overall", SmallInteger, nullable=True),
    Column("reasons", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    _text("summary"),
    _count("dropped_quotes"),
    Column("is_current", Boolean, nullable=False, server_default=text("false")),
    _when("evaluated_at"),
    Column("evidence", JSONB, nullable=True),
    *_usage_columns(),
    _created_at(),
    UniqueConstraint("call_id", "rubric_version_id"),
    CheckConstraint("state IN ('pending', 'queued', 'running', 'done', 'dead')", name="state"),
    CheckConstraint("lane IN ('live', 'backlog')", name="lane"),
    CheckConstraint("verdict IN ('pass', 'fail', 'needs_review', 'not_evaluated')", name="verdict"),
    CheckConstraint("overall BETWEEN 0 AND 100", name="overall"),
    CheckConstraint("(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('done', 'dead')) = (verdict IS NOT NULL)", name="verdict_is_final"),
    Index("ix_evaluations_workspace_id_created_at", "workspace_id", text("created_at DESC")),
    Index("ix_evaluations_agent_id_created_at", "agent_id", text("created_at DESC")),
    Index("ix_evaluations_due", "lane", "workspace_id", "not_before", postgresql_where=text("state = 'pending'")),
    Index("ix_evaluations_queued", "queued_at", postgresql_where=text("state = 'queued'")),
    Index("ix_evaluations_running", "lease_until", postgresql_where=text("state = 'running'")),
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
    _text("explanation"),
)

findings = Table(
    "findings",
    metadata,
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("criterion", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("source", Text, nullable=False),
    _text("check"),
    Column("turn", Integer, nullable=True),
    _text("quote"),
    _text("explanation"),
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
    _when("started_at", nullable=False),
    _when("ended_at", nullable=False),
    Column("error_kind", Text, nullable=True),
    _text("error_code"),
    _text("error_message"),
    _text("model"),
    Column("request_id", Text, nullable=True),
    _text("raw"),
    *_usage_columns(),
    CheckConstraint("result IN ('done', 'retry', 'parked', 'dead', 'abandoned')", name="result"),
    Index("ix_attempts_evaluation_id_started_at", "evaluation_id", "started_at"),
    Index("ix_attempts_ended_at", "ended_at"),
)
