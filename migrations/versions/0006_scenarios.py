"""scenarios agents under test suite runs runs and their turns

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _lanes("'live', 'backlog', 'batch', 'run'")
    _make_versions("scenarios")
    _make_versions(
        "agents_under_test",
        sa.Column("version", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
    )
    _make_suite_runs()
    _make_runs()
    _make_run_turns()


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("run_turns")
    op.drop_table("runs")
    op.drop_table("suite_runs")
    op.drop_table("agents_under_test")
    op.drop_table("scenarios")
    # What was graded as a run stays graded; what was not can't be any more.
    op.execute("UPDATE evaluations SET lane = 'backlog' WHERE lane = 'run'")
    _lanes("'live', 'backlog', 'batch'")


def _lanes(allowed: str) -> None:
    op.execute("ALTER TABLE evaluations DROP CONSTRAINT ck_evaluations_lane")
    op.execute(f"ALTER TABLE evaluations ADD CONSTRAINT ck_evaluations_lane CHECK (lane IN ({allowed})) NOT VALID")
    op.execute("ALTER TABLE evaluations VALIDATE CONSTRAINT ck_evaluations_lane")


def _make_versions(table: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        *columns,
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=f"fk_{table}_workspace_id_workspaces"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.UniqueConstraint("workspace_id", "fingerprint", name=f"uq_{table}_workspace_id_fingerprint"),
    )


def _make_suite_runs() -> None:
    op.create_table(
        "suite_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("agent_under_test_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("judge", sa.Text(), nullable=True),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        _created_at(),
        sa.CheckConstraint("state IN ('running', 'done', 'cancelled')", name=op.f("ck_suite_runs_state")),
        sa.CheckConstraint("(state = 'running') = (completed_at IS NULL)", name=op.f("ck_suite_runs_completed_at")),
        sa.CheckConstraint("judge IN ('claude', 'rules')", name=op.f("ck_suite_runs_judge")),
        sa.CheckConstraint("max_parallel > 0", name=op.f("ck_suite_runs_max_parallel")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_suite_runs_workspace_id_workspaces"),
        sa.ForeignKeyConstraint(
            ["agent_under_test_id"],
            ["agents_under_test.id"],
            name="fk_suite_runs_agent_under_test_id_agents_under_test",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_suite_runs"),
    )
    running = sa.text("state = 'running'")
    op.create_index("ix_suite_runs_running", "suite_runs", ["created_at"], postgresql_where=running)
    op.create_index("ix_suite_runs_workspace_id_created_at", "suite_runs", ["workspace_id", sa.text("created_at DESC")])


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("suite_run_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("scenario_id", sa.Uuid(), nullable=False),
        sa.Column("agent_under_test_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("attempt_no", sa.Integer(), server_default="1", nullable=False),
        *_work_columns(),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("completion", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("clock_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("played_s", sa.Double(), server_default="0", nullable=False),
        sa.Column("turn_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("evaluation_id", sa.Uuid(), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        *_usage_columns(),
        _created_at(),
        sa.CheckConstraint("state IN ('pending', 'queued', 'running', 'done', 'dead')", name=op.f("ck_runs_state")),
        sa.CheckConstraint("lane IN ('live', 'backlog')", name=op.f("ck_runs_lane")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name=op.f("ck_runs_lease")
        ),
        sa.CheckConstraint(
            "outcome IN ('passed', 'failed', 'error', 'invalid', 'cancelled')", name=op.f("ck_runs_outcome")
        ),
        sa.CheckConstraint(
            "(state IN ('done', 'dead')) = (outcome IS NOT NULL)", name=op.f("ck_runs_outcome_is_final")
        ),
        sa.CheckConstraint(
            "state <> 'dead' OR outcome IN ('error', 'cancelled')", name=op.f("ck_runs_dead_measured_nothing")
        ),
        sa.CheckConstraint("(outcome IS NULL) = (completed_at IS NULL)", name=op.f("ck_runs_completed_at")),
        sa.ForeignKeyConstraint(
            ["suite_run_id"], ["suite_runs.id"], name="fk_runs_suite_run_id_suite_runs", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_runs_workspace_id_workspaces"),
        sa.ForeignKeyConstraint(["scenario_id"], ["scenarios.id"], name="fk_runs_scenario_id_scenarios"),
        sa.ForeignKeyConstraint(
            ["agent_under_test_id"], ["agents_under_test.id"], name="fk_runs_agent_under_test_id_agents_under_test"
        ),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_runs_call_id_calls"),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_runs_evaluation_id_evaluations"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint(
            "suite_run_id",
            "scenario_id",
            "repeat",
            "attempt_no",
            name="uq_runs_suite_run_id_scenario_id_repeat_attempt_no",
        ),
    )
    due = ["suite_run_id", "not_before", "position"]
    op.create_index("ix_runs_due", "runs", due, postgresql_where=sa.text("state = 'pending'"))
    op.create_index("ix_runs_queued", "runs", ["queued_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_runs_running", "runs", ["lease_until"], postgresql_where=sa.text("state = 'running'"))
    in_flight = sa.text("state IN ('queued', 'running')")
    op.create_index("ix_runs_in_flight", "runs", ["suite_run_id"], postgresql_where=in_flight)


def _make_run_turns() -> None:
    op.create_table(
        "run_turns",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        *_usage_columns(),
        _created_at(),
        sa.CheckConstraint("role IN ('caller', 'agent', 'tool')", name=op.f("ck_run_turns_role")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_turns_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "index", name="pk_run_turns"),
    )
    op.create_index("ix_run_turns_created_at", "run_turns", ["created_at"], postgresql_using="brin")


def _created_at() -> sa.Column[Any]:
    return sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def _work_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("lane", sa.Text(), server_default="live", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("park_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("wait_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("error_kind", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), server_default="", nullable=False),
        sa.Column("error_message", sa.Text(), server_default="", nullable=False),
    ]


def _usage_columns() -> list[sa.Column[Any]]:
    counts = (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "output_tokens",
        "thinking_tokens",
    )
    return [
        *(sa.Column(name, sa.Integer(), server_default="0", nullable=False) for name in counts),
        sa.Column("cost_micro_usd", sa.BigInteger(), server_default="0", nullable=True),
    ]
