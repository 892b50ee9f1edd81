"""Alerts: what is watched for, what matched, what was said about it, to whom, and what could not be done."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from qa_worker.adapters.postgres.tables.columns import (
    count_column,
    created_at,
    id_column,
    metadata,
    text_column,
    when,
    work_columns,
)

# Alerts: what is watched for, what matched, what was said about it, and to whom. The URL of an endpoint and its secrets
# are ciphertexts; `target_hint` (scheme, host, port) is what may be shown.
endpoints = Table(
    "endpoints",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    text_column("target_hint"),
    Column("target", LargeBinary, nullable=False),
    Column("state", Text, nullable=False, server_default="active"),
    text_column("disabled_reason"),
    when("failing_since"),
    count_column("consecutive_failures"),
    # Left alone until then: it has failed too often in a row, or asked for it.
    when("paused_until"),
    when("last_success_at"),
    # About how long it takes for a delivery, in seconds; NULL: none was ever sent. Not kept up while all are quick.
    Column("took_s", Double, nullable=True),
    created_at(),
    UniqueConstraint("workspace_id", "name"),
    CheckConstraint("kind IN ('webhook', 'slack', 'apprise')", name="kind"),
    CheckConstraint("state IN ('active', 'disabled')", name="state"),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    id_column(),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    created_at(),
    # NULL: the current one. One that was rotated out signs too until then.
    when("expires_at"),
    Index("ix_endpoint_secrets_endpoint_id", "endpoint_id"),
)

alert_rules = Table(
    "alert_rules",
    metadata,
    id_column(),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    # NULL: every agent of the workspace.
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    text_column("criterion"),
    Column("threshold", Double, nullable=True),
    Column("window_s", Integer, nullable=True),
    Column("min_samples", Integer, nullable=True),
    Column("baseline", Boolean, nullable=False, server_default=text("false")),
    Column("rise", Double, nullable=True),
    Column("cooldown_s", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    created_at(),
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
    id_column(),
    Column("rule_id", Uuid, ForeignKey("alert_rules.id", ondelete="CASCADE"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    Column("state", Text, nullable=False, server_default="open"),
    when("opened_at", nullable=False),
    when("last_match_at", nullable=False),
    when("resolved_at"),
    count_column("match_count"),
    when("quiet_until", nullable=False),
    # Matches since the last alert about it.
    count_column("gathered"),
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
    id_column(),
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
    created_at(),
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
    id_column(),
    Column("rule_id", Uuid, ForeignKey("alert_rules.id", ondelete="CASCADE"), nullable=False),
    Column("agent_id", Uuid, ForeignKey("agents.id"), nullable=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    # An evaluation's id, a run's id, or the key of an event.
    Column("cause", Text, nullable=False),
    Column("evaluation_id", Uuid, nullable=True),
    Column("overall", SmallInteger, nullable=True),
    text_column("detail"),
    when("matched_at", nullable=False),
    Column("incident_id", Uuid, ForeignKey("incidents.id", ondelete="CASCADE"), nullable=True),
    Column("alert_id", Uuid, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=True),
    Index("ix_alert_matches_unfolded", "rule_id", "agent_id", postgresql_where=text("incident_id IS NULL")),
    Index("ix_alert_matches_alert_id", "alert_id"),
    Index("ix_alert_matches_incident_id_alert_id", "incident_id", "alert_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    id_column(),
    Column("alert_id", Uuid, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id"), nullable=False),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=False),
    *work_columns(),
    # The `webhook-id`: a receiver that sees it again has seen this alert before. A replay keeps it.
    Column("message_id", Text, nullable=False),
    Column("replay_of", Uuid, ForeignKey("deliveries.id"), nullable=True),
    when("delivered_at"),
    Column("response_status", Integer, nullable=True),
    created_at(),
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
    id_column(),
    Column("delivery_id", Uuid, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("result", Text, nullable=False),
    when("started_at", nullable=False),
    when("ended_at", nullable=False),
    Column("status_code", Integer, nullable=True),
    Column("duration_ms", Integer, nullable=True),
    Column("error_kind", Text, nullable=True),
    text_column("error_code"),
    text_column("error_message"),
    # The beginning of what the receiver answered, at most 1 KiB.
    text_column("response_head"),
    CheckConstraint("result IN ('delivered', 'retry', 'parked', 'dead', 'abandoned')", name="result"),
    CheckConstraint("octet_length(response_head) <= 1024", name="response_head"),
    Index("ix_delivery_attempts_delivery_id_started_at", "delivery_id", "started_at"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    id_column(),
    Column("kind", Text, nullable=False),
    # The delivery, evaluation or run that died; of a message it is made of what it said.
    Column("ref_id", Uuid, nullable=True),
    Column("workspace_id", Uuid, ForeignKey("workspaces.id"), nullable=True),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id"), nullable=True),
    text_column("queue"),
    text_column("task"),
    text_column("reason"),
    count_column("attempts"),
    text_column("first_error"),
    text_column("last_error"),
    # Ids only, or the beginning of an unreadable message: shown, never queried.
    Column("payload", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("state", Text, nullable=False, server_default="open"),
    when("died_at", nullable=False),
    # When it was put on the dead-letter queue, and which message there is the one about it.
    when("announced_at"),
    Column("announcement", Uuid, nullable=True),
    when("settled_at"),
    text_column("settled_by"),
    text_column("note"),
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
    Index("ix_dead_letters_unannounced", "died_at", postgresql_where=text("announced_at IS NULL AND state = 'open'")),
    Index("ix_dead_letters_replay_ref", "replay_ref", postgresql_where=text("replay_ref IS NOT NULL")),
)
