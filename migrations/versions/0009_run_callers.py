"""who played the caller of a run, how often its players' answers could not be used, and when it was begun anew

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column("runs", sa.Column("caller", sa.Text(), server_default="", nullable=False))
    op.add_column("runs", sa.Column("revived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("unreadable_count", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_column("runs", "unreadable_count")
    op.drop_column("runs", "revived_at")
    op.drop_column("runs", "caller")
