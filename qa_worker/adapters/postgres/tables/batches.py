"""Message Batches: see `qa_worker.domain.batch`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from qa_worker.adapters.postgres.tables.columns import count_column, created_at, id_column, metadata, text_column, when

# Message Batches: see `qa_worker.domain.batch`. A row whose provider_id turned out to be somebody else's stays as `failed`.
batches = Table(
    "batches",
    metadata,
    id_column(),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="preparing"),
    Column("provider_id", Text, nullable=True, unique=True),
    count_column("request_count"),
    Column("adopted", Boolean, nullable=False, server_default=text("false")),
    Column("dissolved", Boolean, nullable=False, server_default=text("false")),
    when("began_at"),
    when("unsure_since"),
    when("submitted_at"),
    when("expires_at"),
    when("ended_at"),
    when("collected_at"),
    when("cancel_asked_at"),
    when("cancel_told_at"),
    count_column("succeeded"),
    count_column("errored"),
    count_column("canceled"),
    count_column("expired"),
    Column("cost_micro_usd", BigInteger, nullable=True),
    count_column("failures"),
    count_column("deaths"),
    Column("error_kind", Text, nullable=True),
    text_column("error_code"),
    text_column("error_message"),
    Column("next_look_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Until when the evaluations in it are leased, and until when the worker that is at it is.
    when("items_leased_until"),
    when("lease_until"),
    Column("lease_token", Uuid, nullable=True),
    created_at(),
    CheckConstraint("state IN ('preparing', 'creating', 'in_progress', 'ended', 'collected', 'failed')", name="state"),
    CheckConstraint("state <> 'in_progress' OR provider_id IS NOT NULL", name="provider_id"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    # One at a time: so one of the provider's batches that nobody knows can only be that one. A dissolved one is over.
    Index(
        "uq_batches_being_made", "dissolved", unique=True, postgresql_where=text("state IN ('preparing', 'creating')")
    ),
    Index(
        "ix_batches_open",
        "next_look_at",
        postgresql_where=text("state IN ('preparing', 'creating', 'in_progress', 'ended')"),
    ),
    Index("ix_batches_created_at", "created_at"),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", Uuid, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    # The evaluation's lease token, and as hex digits the item's custom_id.
    Column("token", Uuid, primary_key=True),
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id", ondelete="CASCADE"), nullable=False),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    # NULL: the price of the model isn't known.
    Column("estimate_micro_usd", BigInteger, nullable=True),
    Column("result", Text, nullable=True),
    CheckConstraint("result IN ('succeeded', 'errored', 'canceled', 'expired', 'missing')", name="result"),
    Index("ix_batch_items_evaluation_id", "evaluation_id"),
    Index("ix_batch_items_open", "batch_id", "token", postgresql_where=text("result IS NULL")),
)

# What the open items of a batch that was sent will probably cost, by workspace: the sum of `estimate_micro_usd`, which
# would be that of hundreds of thousands of rows.
batch_promises = Table(
    "batch_promises",
    metadata,
    Column("batch_id", Uuid, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), primary_key=True),
    Column("micro_usd", BigInteger, nullable=False),
)
