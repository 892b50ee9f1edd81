"""majority of several judges' answers

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column("rubric_versions", sa.Column("votes", sa.SmallInteger(), server_default="1", nullable=False))
    op.add_column("rubric_versions", sa.Column("borderline", sa.SmallInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_column("rubric_versions", "borderline")
    op.drop_column("rubric_versions", "votes")
