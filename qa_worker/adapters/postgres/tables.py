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
    LargeBinary,
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
    Column("votes", SmallInteger, nullable=False, server_default="1"),
    Column("borderline", SmallInteger, nullable=False, server_default="0"),
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
    CheckConstraint("lane IN ('live', 'backlog', 'batch', 'run')", name="lane"),
    CheckConstraint("verdict IN ('pass', 'fail', 'needs_review', 'not_evaluated')", name="verdict"),
    CheckConstraint("overall BETWEEN 0 AND 100", name="overall"),
    CheckConstraint("(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('done', 'dead')) = (verdict IS NOT NULL)", name="verdict_is_final"),
    Index("ix_evaluations_workspace_id_created_at", "workspace_id", text("created_at DESC")),
    Index("ix_evaluations_agent_id_created_at", "agent_id", text("created_at DESC")),
    Index("ix_evaluations_due", "lane", "rubric_version_id", "not_before", postgresql_where=text("state = 'pending'")),
    Index("ix_evaluations_queued", "queued_at", postgresql_where=text("state = 'queued'")),
    Index("ix_evaluations_running", "lease_until", postgresql_where=text("state = 'running'")),
    # What a batch holds is running for hours, and is nothing that workers are busy with.
    Index(
        "ix_evaluations_in_flight",
        "workspace_id",
        postgresql_where=text("state IN ('queued', 'running') AND lane <> 'batch'"),
    ),
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

# Message Batches: see `qa_worker.domain.batch`. A row whose provider_id turned out to be somebody else's stays as `failed`.
batches = Table(
    "batches",
    metadata,
    _id(),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="preparing"),
    Column("provider_id", Text, nullable=True, unique=True),
    _count("request_count"),
    Column("adopted", Boolean, nullable=False, server_default=text("false")),
    Column("dissolved", Boolean, nullable=False, server_default=text("false")),
    _when("began_at"),
    _when("unsure_since"),
    _when("submitted_at"),
    _when("expires_at"),
    _when("ended_at"),
    _when("collected_at"),
    _when("cancel_asked_at"),
    _when("cancel_told_at"),
    _count("succeeded"),
    _count("errored"),
    _count("canceled"),
    _count("expired"),
    Column("cost_micro_usd", BigInteger, nullable=True),
    _count("failures"),
    _count("deaths"),
    Column("error_kind", Text, nullable=True),
    _text("error_code"),
    _text("error_message"),
    Column("next_look_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Until when the evaluations in it are leased, and until when the worker that is at it is.
    _when("items_leased_until"),
    _when("lease_until"),
    Column("lease_token", Uuid, nullable=True),
    _created_at(),
    CheckConstraint(
        "state IN ('preparing', 'creating', 'in_progress', 'ended', 'collected', 'failed')", name="state"
    ),
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

# Alerts: what is watched for, what matched, what was said about it, and to whom. The URL of an endpoint and its secrets
# are ciphertexts; `target_hint` (scheme and host) is what may be shown.
endpoints = Table(
    "endpoints",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    _text("target_hint"),
    Column("target", LargeBinary, nullable=False),
    Column("state", Text, nullable=False, server_default="active"),
    _text("disabled_reason"),
    _when("failing_since"),
    _count("consecutive_failures"),
    # Left alone until then: it has failed too often in a row, or asked for it.
    _when("paused_until"),
    _when("last_success_at"),
    _created_at(),
    UniqueConstraint("workspace_id", "name"),
    CheckConstraint("kind IN ('webhook', 'slack', 'apprise')", name="kind"),
    CheckConstraint("state IN ('active', 'disabled')", name="state"),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    _id(),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    _created_at(),
    # NULL: the current one. One that was rotated out signs too until then.
    _when("expires_at"),
    Index("ix_endpoint_secrets_endpoint_id", "endpoint_id"),
)

alert_rules = Table(
    "alert_rules",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    # NULL: every agent of the workspace.
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    _text("criterion"),
    Column("threshold", Double, nullable=True),
    Column("window_s", Integer, nullable=True),
    Column("min_samples", Integer, nullable=True),
    Column("baseline", Boolean, nullable=False, server_default=text("false")),
    Column("rise", Double, nullable=True),
    Column("cooldown_s", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    _created_at(),
    UniqueConstraint("workspace_id", "name"),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
)

alert_rule_endpoints = Table(
    "alert_rule_endpoints",
    metadata,
    Column("rule_id", Uuid, ForeignKey("alert_rules.id", ondelete="CASCADE"), primary_key=True),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True),
)

incidents = Table(
    "incidents",
    metadata,
    _id(),
    Column("rule_id", Uuid, ForeignKey("alert_rules.id", ondelete="CASCADE"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("state", Text, nullable=False, server_default="open"),
    _when("opened_at", nullable=False),
    _when("last_match_at", nullable=False),
    _when("resolved_at"),
    _count("match_count"),
    _when("quiet_until", nullable=False),
    # Matches since the last alert about it.
    _count("gathered"),
    CheckConstraint("state IN ('open', 'resolved')", name="state"),
    CheckConstraint("(state = 'resolved') = (resolved_at IS NOT NULL)", name="resolved_at"),
    Index(
        "uq_incidents_open",
        "rule_id",
        "agent_id",
        unique=True,
        postgresql_where=text("state = 'open'"),
        postgresql_nulls_not_distinct=True,
    ),
    Index("ix_incidents_due", "quiet_until", postgresql_where=text("state = 'open'")),
    Index("ix_incidents_resolved_at", "resolved_at", postgresql_where=text("state = 'resolved'")),
)

alerts = Table(
    "alerts",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("rule_id", Uuid, ForeignKey("alert_rules.id", ondelete="SET NULL"), nullable=True),
    Column("incident_id", Uuid, ForeignKey("incidents.id", ondelete="SET NULL"), nullable=True),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("event", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("title", Text, nullable=False),
    # The very bytes that every try and every replay sends.
    Column("body", LargeBinary, nullable=False),
    # No foreign keys: an alert outlives what it is about.
    Column("evaluation_id", Uuid, nullable=True),
    Column("call_id", Uuid, nullable=True),
    _created_at(),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    Index("ix_alerts_workspace_id_created_at", "workspace_id", text("created_at DESC"), text("id DESC")),
    Index("ix_alerts_created_at", "created_at"),
    Index("ix_alerts_rule_id", "rule_id"),
    Index("ix_alerts_incident_id", "incident_id"),
)

# Only ever appended to where an evaluation is recorded; folding them into incidents is another transaction's business.
alert_matches = Table(
    "alert_matches",
    metadata,
    # Made of the rule and the cause: a cause matches a rule once.
    _id(),
    Column("rule_id", Uuid, ForeignKey("alert_rules.id", ondelete="CASCADE"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    # An evaluation's id, a run's id, or the key of an event.
    Column("cause", Text, nullable=False),
    Column("evaluation_id", Uuid, nullable=True),
    Column("overall", SmallInteger, nullable=True),
    _text("detail"),
    _when("matched_at", nullable=False),
    Column("incident_id", Uuid, ForeignKey("incidents.id", ondelete="CASCADE"), nullable=True),
    Column("alert_id", Uuid, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=True),
    Index("ix_alert_matches_unfolded", "rule_id", "agent_id", postgresql_where=text("incident_id IS NULL")),
    Index("ix_alert_matches_alert_id", "alert_id"),
    Index("ix_alert_matches_incident_id_alert_id", "incident_id", "alert_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    Column("alert_id", Uuid, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id"), nullable=False),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    *_work_columns(),
    # The `webhook-id`: a receiver that sees it again has seen this alert before. A replay keeps it.
    Column("message_id", Text, nullable=False),
    Column("replay_of", Uuid, ForeignKey("deliveries.id"), nullable=True),
    _when("delivered_at"),
    Column("response_status", Integer, nullable=True),
    _created_at(),
    UniqueConstraint("alert_id", "endpoint_id", "replay_of", postgresql_nulls_not_distinct=True),
    CheckConstraint("state IN ('pending', 'queued', 'running', 'done', 'dead')", name="state"),
    CheckConstraint("lane IN ('live', 'backlog')", name="lane"),
    CheckConstraint("(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state = 'done') = (delivered_at IS NOT NULL)", name="delivered_at"),
    Index(
        "ix_deliveries_due",
        "endpoint_id",
        text("lane DESC"),
        "not_before",
        postgresql_where=text("state = 'pending'"),
    ),
    Index("ix_deliveries_queued", "queued_at", postgresql_where=text("state = 'queued'")),
    Index("ix_deliveries_running", "lease_until", postgresql_where=text("state = 'running'")),
    Index("ix_deliveries_under_way", "endpoint_id", postgresql_where=text("state IN ('queued', 'running')")),
    Index("ix_deliveries_endpoint_id_created_at", "endpoint_id", text("created_at DESC")),
    Index("ix_deliveries_replay_of", "replay_of", postgresql_where=text("replay_of IS NOT NULL")),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    # The lease token, as in `attempts`.
    _id(),
    Column("delivery_id", Uuid, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("result", Text, nullable=False),
    _when("started_at", nullable=False),
    _when("ended_at", nullable=False),
    Column("status_code", Integer, nullable=True),
    Column("duration_ms", Integer, nullable=True),
    Column("error_kind", Text, nullable=True),
    _text("error_code"),
    _text("error_message"),
    # The beginning of what the receiver answered, at most 1 KiB.
    _text("response_head"),
    CheckConstraint("result IN ('delivered', 'retry', 'parked', 'dead', 'abandoned')", name="result"),
    CheckConstraint("octet_length(response_head) <= 1024", name="response_head"),
    Index("ix_delivery_attempts_delivery_id_started_at", "delivery_id", "started_at"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _id(),
    Column("kind", Text, nullable=False),
    # The delivery, evaluation or run that died; of a message it is made of what it said.
    Column("ref_id", Uuid, nullable=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=True),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id"), nullable=True),
    _text("queue"),
    _text("task"),
    _text("reason"),
    _count("attempts"),
    _text("first_error"),
    _text("last_error"),
    # Ids only, or the beginning of an unreadable message: shown, never queried.
    Column("payload", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("state", Text, nullable=False, server_default="open"),
    _when("died_at", nullable=False),
    # When it was put on the dead-letter queue, and which message there is the one about it.
    _when("announced_at"),
    Column("announcement", Uuid, nullable=True),
    _when("settled_at"),
    _text("settled_by"),
    _text("note"),
    # The new piece of work that a replay started.
    Column("replay_ref", Uuid, nullable=True),
    # The letter whose replay died, and how many times it has died with this one.
    Column("again_of", Uuid, nullable=True),
    Column("deaths", Integer, nullable=False, server_default="1"),
    CheckConstraint("kind IN ('alert', 'evaluation', 'run', 'message')", name="kind"),
    CheckConstraint("state IN ('open', 'replayed', 'discarded')", name="state"),
    CheckConstraint("(state = 'open') = (settled_at IS NULL)", name="settled_at"),
    Index("uq_dead_letters_open", "kind", "ref_id", unique=True, postgresql_where=text("state = 'open'")),
    Index("ix_dead_letters_died_at", text("died_at DESC"), "id"),
    Index("ix_dead_letters_state_died_at", "state", text("died_at DESC"), "id"),
    Index("ix_dead_letters_workspace_id_died_at", "workspace_id", text("died_at DESC"), "id"),
    Index("ix_dead_letters_endpoint_id_died_at", "endpoint_id", text("died_at DESC"), "id"),
    Index(
        "ix_dead_letters_unannounced", "died_at", postgresql_where=text("announced_at IS NULL AND state = 'open'")
    ),
    Index("ix_dead_letters_replay_ref", "replay_ref", postgresql_where=text("replay_ref IS NOT NULL")),
)

# Scenarios, agents under test, suite runs, runs and their turns: see `qa_worker.domain.scenario` and `.run`.
scenarios = Table(
    "scenarios",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("ref", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    _created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
)

# A secret stands in `content` only as the name of an environment variable.
agents_under_test = Table(
    "agents_under_test",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("ref", Text, nullable=False),
    _text("version"),
    Column("kind", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    _created_at(),
    UniqueConstraint("workspace_id", "fingerprint"),
)

suite_runs = Table(
    "suite_runs",
    metadata,
    _id(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("agent_under_test_id", Uuid, ForeignKey("agents_under_test.id"), nullable=False),
    Column("name", Text, nullable=False),
    _text("label"),
    # NULL: the judge of the settings.
    Column("judge", Text, nullable=True),
    Column("max_parallel", Integer, nullable=False),
    Column("repeats", Integer, nullable=True),
    Column("state", Text, nullable=False, server_default="running"),
    _text("created_by"),
    _when("cancel_requested_at"),
    _when("completed_at"),
    _created_at(),
    CheckConstraint("state IN ('running', 'done', 'cancelled')", name="state"),
    CheckConstraint("(state = 'running') = (completed_at IS NULL)", name="completed_at"),
    CheckConstraint("judge IN ('claude', 'rules')", name="judge"),
    CheckConstraint("max_parallel > 0", name="max_parallel"),
    Index("ix_suite_runs_running", "created_at", postgresql_where=text("state = 'running'")),
    Index("ix_suite_runs_workspace_id_created_at", "workspace_id", text("created_at DESC")),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    Column("suite_run_id", Uuid, ForeignKey("suite_runs.id", ondelete="CASCADE"), nullable=False),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("scenario_id", Uuid, ForeignKey("scenarios.id"), nullable=False),
    Column("agent_under_test_id", Uuid, ForeignKey("agents_under_test.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("repeat", Integer, nullable=False),
    # From 1: runs of the same repeat, of which the simulated caller spoilt all but the last.
    Column("attempt_no", Integer, nullable=False, server_default="1"),
    *_work_columns(),
    # The final state of the run. Before it the state of the work says all: pending, or running.
    Column("outcome", Text, nullable=True),
    Column("completion", Text, nullable=True),
    _text("message"),
    # Seconds on the conversation's own clock, and real seconds that workers spent on it.
    Column("clock_s", Double, nullable=False, server_default="0"),
    Column("played_s", Double, nullable=False, server_default="0"),
    _count("turn_count"),
    _when("cancel_requested_at"),
    Column("call_id", Uuid, ForeignKey("calls.id"), nullable=True),
    Column("evaluation_id", Uuid, ForeignKey("evaluations.id"), nullable=True),
    _when("begun_at"),
    _when("completed_at"),
    # Of the conversation: caller and agent. The judge's are those of the evaluation.
    *_usage_columns(),
    _created_at(),
    UniqueConstraint("suite_run_id", "scenario_id", "repeat", "attempt_no"),
    CheckConstraint("state IN ('pending', 'queued', 'running', 'done', 'dead')", name="state"),
    CheckConstraint("lane IN ('live', 'backlog')", name="lane"),
    CheckConstraint("(state = 'running') = (lease_token IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("outcome IN ('passed', 'failed', 'error', 'invalid', 'cancelled')", name="outcome"),
    CheckConstraint("(state IN ('done', 'dead')) = (outcome IS NOT NULL)", name="outcome_is_final"),
    CheckConstraint("state <> 'dead' OR outcome IN ('error', 'cancelled')", name="dead_measured_nothing"),
    CheckConstraint("(outcome IS NULL) = (completed_at IS NULL)", name="completed_at"),
    Index("ix_runs_due", "suite_run_id", "not_before", "position", postgresql_where=text("state = 'pending'")),
    Index("ix_runs_queued", "queued_at", postgresql_where=text("state = 'queued'")),
    Index("ix_runs_running", "lease_until", postgresql_where=text("state = 'running'")),
    Index("ix_runs_in_flight", "suite_run_id", postgresql_where=text("state IN ('queued', 'running')")),
)

run_turns = Table(
    "run_turns",
    metadata,
    Column("run_id", Uuid, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("role", Text, nullable=False),
    # The turn as it was heard, what was cut off, the caller's line as written: see `qa_worker.domain.playback`.
    Column("content", JSONB, nullable=False),
    *_usage_columns(),
    _created_at(),
    CheckConstraint("role IN ('caller', 'agent', 'tool')", name="role"),
    Index("ix_run_turns_created_at", "created_at", postgresql_using="brin"),
)
