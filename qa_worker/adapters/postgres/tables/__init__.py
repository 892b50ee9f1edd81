"""The schema. Migrations are written by hand and checked against this by `alembic check`.

Scores are integers 0-100, money integer micro-dollars, times `timestamptz`. JSON columns hold what is only ever read
whole (a transcript, an agent's tools, evidence); whatever is queried has a column or a table.
"""

from __future__ import annotations

from qa_worker.adapters.postgres.tables.alerts import (
    alert_matches,
    alert_rule_endpoints,
    alert_rules,
    alerts,
    dead_letters,
    deliveries,
    delivery_attempts,
    endpoint_secrets,
    endpoints,
    incidents,
)
from qa_worker.adapters.postgres.tables.batches import batch_items, batch_promises, batches
from qa_worker.adapters.postgres.tables.budgets import daily_spending, overall_budget
from qa_worker.adapters.postgres.tables.calls import (
    agent_versions,
    agents,
    calls,
    default_rubrics,
    rubric_versions,
    rubrics,
    workspaces,
)
from qa_worker.adapters.postgres.tables.columns import metadata
from qa_worker.adapters.postgres.tables.evaluations import attempts, evaluation_scores, evaluations, findings
from qa_worker.adapters.postgres.tables.scenarios import agents_under_test, run_turns, runs, scenarios, suite_runs

__all__ = [
    "agent_versions",
    "agents",
    "agents_under_test",
    "alert_matches",
    "alert_rule_endpoints",
    "alert_rules",
    "alerts",
    "attempts",
    "batch_items",
    "batch_promises",
    "batches",
    "calls",
    "daily_spending",
    "dead_letters",
    "default_rubrics",
    "deliveries",
    "delivery_attempts",
    "endpoint_secrets",
    "endpoints",
    "evaluation_scores",
    "evaluations",
    "findings",
    "incidents",
    "metadata",
    "overall_budget",
    "rubric_versions",
    "rubrics",
    "run_turns",
    "runs",
    "scenarios",
    "suite_runs",
    "workspaces",
]
