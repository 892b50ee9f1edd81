"""spending by day and workspace, so that a budget's books are a few rows; and when an evaluation began anew

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Only the day that goes on is looked at: earlier ones need no row.
_TODAY = "date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
_SPENT_TODAY = f"""
    INSERT INTO daily_spending (day, workspace_id, micro_usd)
    SELECT (now() AT TIME ZONE 'UTC')::date, workspace_id, sum(cost_micro_usd)
    FROM (
        SELECT evaluations.workspace_id, attempts.cost_micro_usd
        FROM attempts JOIN evaluations ON evaluations.id = attempts.evaluation_id
        WHERE attempts.ended_at >= {_TODAY}
        UNION ALL
        SELECT runs.workspace_id, run_turns.cost_micro_usd
        FROM run_turns JOIN runs ON runs.id = run_turns.run_id
        WHERE run_turns.created_at >= {_TODAY}
    ) AS spent
    GROUP BY workspace_id
    HAVING sum(cost_micro_usd) > 0
"""  # noqa: S608 - our own text

_PROMISED = """
    INSERT INTO batch_promises (batch_id, workspace_id, micro_usd)
    SELECT batch_id, workspace_id, coalesce(sum(estimate_micro_usd), 0)
    FROM batch_items JOIN batches ON batches.id = batch_items.batch_id
    WHERE batches.state IN ('creating', 'in_progress', 'ended') AND batch_items.result IS NULL
    GROUP BY batch_id, workspace_id
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "daily_spending",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("micro_usd", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_daily_spending_workspace_id_workspaces")
        ),
        sa.PrimaryKeyConstraint("day", "workspace_id", name=op.f("pk_daily_spending")),
    )
    op.execute(_SPENT_TODAY)
    op.create_table(
        "batch_promises",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("micro_usd", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_batch_promises_batch_id_batches"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_batch_promises_workspace_id_workspaces")
        ),
        sa.PrimaryKeyConstraint("batch_id", "workspace_id", name=op.f("pk_batch_promises")),
    )
    op.execute(_PROMISED)
    op.create_table(
        "overall_budget",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("daily_micro_usd", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_overall_budget_single")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_overall_budget")),
    )
    # The last one, because everybody waits for it from here to the commit.
    op.add_column("evaluations", sa.Column("revived_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_column("evaluations", "revived_at")
    op.drop_table("overall_budget")
    op.drop_table("batch_promises")
    op.drop_table("daily_spending")
