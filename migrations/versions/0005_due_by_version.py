"""due work by rubric version, so that what one model holds back hides nothing of another

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace("rubric_version_id")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace("workspace_id")


def _replace(second: str) -> None:
    op.drop_index("ix_evaluations_due", table_name="evaluations")
    op.create_index("ix_evaluations_due", "evaluations", ["lane", second, "not_before"], postgresql_where=_PENDING)
