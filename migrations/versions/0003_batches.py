"""message batches

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BEING_MADE = "state IN ('preparing', 'creating')"
_OPEN = "state IN ('preparing', 'creating', 'in_progress', 'ended')"
_IN_FLIGHT = "state IN ('queued', 'running') AND lane <> 'batch'"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _allow_lanes("'live', 'backlog', 'batch'")
    op.create_index("ix_evaluations_in_flight", "evaluations", ["workspace_id"], postgresql_where=sa.text(_IN_FLIGHT))
    _create_batches()
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("token", sa.Uuid(), nullable=False),
        sa.Column("evaluation_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("estimate_micro_usd", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "result IN ('succeeded', 'errored', 'canceled', 'expired', 'missing')", name=op.f("ck_batch_items_result")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_batch_items_batch_id_batches"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
            name=op.f("fk_batch_items_evaluation_id_evaluations"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_batch_items_workspace_id_workspaces")
        ),
        sa.PrimaryKeyConstraint("batch_id", "token", name=op.f("pk_batch_items")),
    )
    op.create_index("ix_batch_items_evaluation_id", "batch_items", ["evaluation_id"])
    op.create_index(
        "ix_batch_items_open", "batch_items", ["batch_id", "token"], postgresql_where=sa.text("result IS NULL")
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("batch_items")
    op.drop_table("batches")
    op.drop_index("ix_evaluations_in_flight", table_name="evaluations")
    op.execute("UPDATE evaluations SET lane = 'backlog' WHERE lane = 'batch'")
    _allow_lanes("'live', 'backlog'")


def _allow_lanes(lanes: str) -> None:
    op.drop_constraint(op.f("ck_evaluations_lane"), "evaluations", type_="check")
    op.create_check_constraint(op.f("ck_evaluations_lane"), "evaluations", f"lane IN ({lanes})")


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="preparing", nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=True),
        _count("request_count"),
        _flag("adopted"),
        _flag("dissolved"),
        *(_when(name) for name in ("began_at", "unsure_since", "submitted_at", "expires_at", "ended_at")),
        *(_when(name) for name in ("collected_at", "cancel_asked_at", "cancel_told_at")),
        *(_count(name) for name in ("succeeded", "errored", "canceled", "expired")),
        sa.Column("cost_micro_usd", sa.BigInteger(), nullable=True),
        _count("failures"),
        _count("deaths"),
        sa.Column("error_kind", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), server_default="", nullable=False),
        sa.Column("error_message", sa.Text(), server_default="", nullable=False),
        sa.Column("next_look_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _when("items_leased_until"),
        _when("lease_until"),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('preparing', 'creating', 'in_progress', 'ended', 'collected', 'failed')",
            name=op.f("ck_batches_state"),
        ),
        sa.CheckConstraint("state <> 'in_progress' OR provider_id IS NOT NULL", name=op.f("ck_batches_provider_id")),
        sa.CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_batches_lease")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("provider_id", name=op.f("uq_batches_provider_id")),
    )
    op.create_index(
        "uq_batches_being_made", "batches", ["dissolved"], unique=True, postgresql_where=sa.text(_BEING_MADE)
    )
    op.create_index("ix_batches_open", "batches", ["next_look_at"], postgresql_where=sa.text(_OPEN))
    op.create_index("ix_batches_created_at", "batches", ["created_at"])


def _when(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer(), server_default="0", nullable=False)


def _flag(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)
