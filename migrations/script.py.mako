"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}

Expand first, backfill in batches, contract in a later release: workers and API are never deployed in the same second.
An index on a table with rows is made CONCURRENTLY, in a migration of its own (`with op.get_context().autocommit_block()`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    # A migration that can't have its lock in 4 s gives way to the traffic behind it, and is run again later.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    ${downgrades if downgrades else "pass"}
