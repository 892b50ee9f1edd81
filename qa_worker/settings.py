"""Every setting, in one place: read once from the environment, frozen, with the reason for each default.

Empty variables count as unset. Durations are seconds and say so in their name.
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_CRON_FIELDS = 5
_CRON = re.compile(r"[0-9a-zA-Z*/,\-]+")


LimitedTask = Literal["evaluate-call", "evaluate-calls", "run-scenario", "send-alert"]
"""The tasks that other people's servers are behind."""
RateLimit = Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d+)?(/[smh])?)?$")]


class Settings(BaseSettings):
    """The environment of one process. Importing this module reads nothing; `settings()` does, once."""

    # An impossible value is not quoted: it may be a key or hold a password.
    model_config = SettingsConfigDict(
        frozen=True, env_ignore_empty=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    # -- where things are. The defaults are those of docker-compose.yml on its own host.
    database_url: SecretStr = Field(
        default=SecretStr("postgresql+psycopg2://qa:qa@127.0.0.1:5432/qa_worker"), validation_alias="DATABASE_URL"
    )
    broker_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias="BROKER_URL")

    # -- the judge. `auto` is Claude with a key and rules without one; every evaluation says which it was.
    judge: Literal["auto", "claude", "rules"] = Field(default="auto", validation_alias="QA_JUDGE")
    anthropic_api_key: SecretStr | None = Field(default=None, validation_alias="ANTHROPIC_API_KEY")
    anthropic_base_url: str | None = Field(default=None, validation_alias="ANTHROPIC_BASE_URL")
    judge_model: str = Field(default="claude-haiku-5-5", validation_alias="QA_JUDGE_MODEL")
    judge_effort: Literal["low", "medium", "high", "xhigh", "max"] = Field(
        default="low", validation_alias="QA_JUDGE_EFFORT"
    )
    # Thinking is inside max_tokens: a tight limit cuts answers, a generous one costs nothing.
    judge_max_tokens: int = Field(default=3000, ge=256, le=21_000, validation_alias="QA_JUDGE_MAX_TOKENS")
    # A score this near to the pass threshold (points) gets this many answers, and their median decides. 1 is off.
    judge_votes: int = Field(default=1, ge=1, le=9, validation_alias="QA_JUDGE_VOTES")
    judge_borderline: int = Field(default=5, ge=0, le=100, validation_alias="QA_JUDGE_BORDERLINE")
    judge_connect_timeout_s: float = Field(default=5.0, gt=0, validation_alias="QA_JUDGE_CONNECT_TIMEOUT_S")
    judge_read_timeout_s: float = Field(default=30.0, gt=0, validation_alias="QA_JUDGE_READ_TIMEOUT_S")
    judge_deadline_s: float = Field(default=60.0, gt=0, validation_alias="QA_JUDGE_DEADLINE_S")

    # -- scenarios. Who plays the caller, and an agent under test that is played by Claude.
    caller_model: str = Field(default="claude-haiku-5-5", validation_alias="QA_CALLER_MODEL")
    caller_effort: Literal["low", "medium", "high", "xhigh", "max"] = Field(
        default="low", validation_alias="QA_CALLER_EFFORT"
    )
    agent_model: str = Field(default="claude-haiku-5-5", validation_alias="QA_AGENT_MODEL")
    agent_effort: Literal["low", "medium", "high", "xhigh", "max"] = Field(
        default="low", validation_alias="QA_AGENT_EFFORT"
    )
    # Agents that answer over HTTP may be anywhere public over https; on this machine where their URL says so in so many
    # words; and in these networks, then over plain http, too: "10.0.0.0/8,fd00::/8".
    agent_allow_loopback: bool = Field(default=True, validation_alias="QA_AGENT_ALLOW_LOOPBACK")
    agent_allowed_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(), validation_alias="QA_AGENT_ALLOWED_NETWORKS"
    )
    # Python modules whose functions may be run as agents in the workers: "my_agents,lab.bots"; none unless set.
    agent_python_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias="QA_AGENT_PYTHON_MODULES"
    )

    # -- attempts. One list of waits; about 3 h in all, so that an outage of an evening costs nobody a verdict.
    retry_schedule_s: tuple[float, ...] = Field(
        default=(5, 15, 60, 300, 900, 3600, 7200), min_length=1, validation_alias="QA_RETRY_SCHEDULE_S"
    )
    max_attempts: int = Field(default=8, ge=1, le=100, validation_alias="QA_MAX_ATTEMPTS")
    unreadable_attempts: int = Field(default=3, ge=1, validation_alias="QA_UNREADABLE_ATTEMPTS")

    # -- the gateway. Redis shares limits and breaker between all workers; without it each process keeps its own.
    redis_url: SecretStr | None = Field(default=None, validation_alias="QA_REDIS_URL")
    breaker_threshold: int = Field(default=5, ge=1, validation_alias="QA_BREAKER_THRESHOLD")
    breaker_recovery_s: float = Field(default=60.0, gt=0, validation_alias="QA_BREAKER_RECOVERY_S")
    breaker_max_recovery_s: float = Field(default=600.0, gt=0, validation_alias="QA_BREAKER_MAX_RECOVERY_S")
    # Caps on what is learnt from the provider's headers, a minute and model; none unless set.
    max_requests_per_minute: int | None = Field(default=None, ge=1, validation_alias="QA_MAX_REQUESTS_PER_MINUTE")
    max_input_tokens_per_minute: int | None = Field(
        default=None, ge=1, validation_alias="QA_MAX_INPUT_TOKENS_PER_MINUTE"
    )
    max_output_tokens_per_minute: int | None = Field(
        default=None, ge=1, validation_alias="QA_MAX_OUTPUT_TOKENS_PER_MINUTE"
    )
    # Among how many worker processes the limits are divided while Redis is away, until Redis has told how many there are.
    worker_processes: int = Field(default=4, ge=1, validation_alias="QA_WORKER_PROCESSES")
    # Dollars a day (UTC): for everything, and for each workspace that has no budget of its own.
    daily_budget_usd: float | None = Field(default=None, ge=0, validation_alias="QA_DAILY_BUDGET_USD")
    workspace_daily_budget_usd: float | None = Field(
        default=None, ge=0, validation_alias="QA_WORKSPACE_DAILY_BUDGET_USD"
    )

    # -- work. A lease is extended while its work goes on; a dead worker's calls are free again within one lease and a sweep.
    lease_s: float = Field(default=90.0, gt=0, validation_alias="QA_LEASE_S")
    resend_after_s: float = Field(default=60.0, gt=0, validation_alias="QA_RESEND_AFTER_S")
    dispatch_every_s: float = Field(default=1.0, gt=0, validation_alias="QA_DISPATCH_EVERY_S")
    rescue_every_s: float = Field(default=15.0, gt=0, validation_alias="QA_RESCUE_EVERY_S")
    # Calls in the broker and at work at once, over all workers: about 4 x the slots that run.
    in_flight_limit: int = Field(default=256, ge=1, validation_alias="QA_IN_FLIGHT_LIMIT")
    evaluate_concurrency: int = Field(default=32, ge=1, le=256, validation_alias="QA_EVALUATE_CONCURRENCY")
    # Celery's own limits of messages of a task, for each worker process alone ("10/s", "100/m", "500/h"); none unless set.
    # The first one is older, and holds for evaluate-call where the mapping names no limit for it.
    evaluate_rate_limit: RateLimit = Field(default="", validation_alias="QA_EVALUATE_RATE_LIMIT")
    rate_limits: dict[LimitedTask, RateLimit] = Field(default={}, validation_alias="QA_RATE_LIMITS")

    # -- runs of scenarios. In the broker and at work at once, of all suites: about 2 x the slots that run.
    run_in_flight_limit: int = Field(default=128, ge=1, validation_alias="QA_RUN_IN_FLIGHT_LIMIT")
    # Waits of a run whose agent or caller fails, before it goes on at the same turn: about 2 min in all, counted from its
    # last turn on. People and pipelines wait for suites: an agent that is down should be an error soon.
    run_retry_schedule_s: tuple[float, ...] = Field(
        default=(2, 5, 15, 30, 60), min_length=1, validation_alias="QA_RUN_RETRY_SCHEDULE_S"
    )
    # From its first turn on, waits included: a run is not played any longer, and its grading is waited for as long again.
    # A scenario with a longer limits.run_s has that.
    run_deadline_s: float = Field(default=3600.0, gt=0, validation_alias="QA_RUN_DEADLINE_S")
    # How often a repeat is played again that the simulated caller spoilt.
    caller_retries: int = Field(default=2, ge=0, le=10, validation_alias="QA_CALLER_RETRIES")

    # -- batches: half price, within a day. One is looked at every `batch_poll_s`; its calls are leased for `batch_lease_s`,
    # longer than the 24 h after which the provider gives up on what is left of it.
    batch_every_s: float = Field(default=30.0, gt=0, validation_alias="QA_BATCH_EVERY_S")
    batch_max_requests: int = Field(default=10_000, ge=1, le=100_000, validation_alias="QA_BATCH_MAX_REQUESTS")
    batch_max_mb: float = Field(default=256, gt=0, le=256, validation_alias="QA_BATCH_MAX_MB")
    batch_poll_s: float = Field(default=60.0, gt=0, validation_alias="QA_BATCH_POLL_S")
    batch_lease_s: float = Field(default=26 * 3600.0, gt=0, validation_alias="QA_BATCH_LEASE_S")
    # After a lost answer a batch is looked for this long before it is sent again.
    batch_settle_s: float = Field(default=120.0, ge=0, validation_alias="QA_BATCH_SETTLE_S")
    # When everything without a verdict under its rubric version is submitted, as in a crontab (UTC); empty is never.
    backlog_schedule: str = Field(default="", validation_alias="QA_BACKLOG_SCHEDULE")

    # -- database: one pool for each process, as large as what the process serves needs: about one connection for four
    # threads, because none is held while a model, an agent or a receiver is waited for, and a few for leases and records.
    # All processes together must stay below PostgreSQL's max_connections (100 unless set).
    evaluate_db_pool_size: int = Field(default=10, ge=1, validation_alias="QA_EVALUATE_DB_POOL_SIZE")
    run_db_pool_size: int = Field(default=16, ge=1, validation_alias="QA_RUN_DB_POOL_SIZE")
    alert_db_pool_size: int = Field(default=10, ge=1, validation_alias="QA_ALERT_DB_POOL_SIZE")
    maintenance_db_pool_size: int = Field(default=6, ge=1, validation_alias="QA_MAINTENANCE_DB_POOL_SIZE")
    # Every other process; a command takes two at most.
    db_pool_size: int = Field(default=10, ge=1, validation_alias="QA_DB_POOL_SIZE")
    db_pool_timeout_s: float = Field(default=30.0, gt=0, validation_alias="QA_DB_POOL_TIMEOUT_S")

    # Results that come within this time share one commit.
    record_window_s: float = Field(default=0.02, ge=0, le=1, validation_alias="QA_RECORD_WINDOW_S")
    # Calls that begin within this of each other are claimed in one transaction; one that begins alone waits for nobody.
    claim_window_s: float = Field(default=0.01, ge=0, le=1, validation_alias="QA_CLAIM_WINDOW_S")

    # -- alerts. Where people can look at a call: links in alerts begin with it; none without it.
    public_url: str = Field(default="", pattern=r"^(https?://[^\s/]+[^\s]*)?$", validation_alias="QA_PUBLIC_URL")
    # Waits between tries to deliver an alert, each spread by 20 %: about 3 h in all, then it is a dead letter.
    alert_retry_schedule_s: tuple[float, ...] = Field(
        default=(5, 30, 120, 600, 1800, 7200), min_length=1, validation_alias="QA_ALERT_RETRY_SCHEDULE_S"
    )
    alert_max_attempts: int = Field(default=7, ge=1, le=100, validation_alias="QA_ALERT_MAX_ATTEMPTS")
    alert_connect_timeout_s: float = Field(default=5.0, gt=0, validation_alias="QA_ALERT_CONNECT_TIMEOUT_S")
    # The whole exchange, from the name server to the answer's last byte.
    alert_timeout_s: float = Field(default=10.0, gt=0, le=60, validation_alias="QA_ALERT_TIMEOUT_S")
    # Under way at once: to one endpoint, so that it takes no more slots than that; to all of them, about 4 x the slots
    # that run. One that takes longer than 2 s gets one at a time, and all of those an eighth of the limit: half of the slots.
    alert_endpoint_limit: int = Field(default=4, ge=1, validation_alias="QA_ALERT_ENDPOINT_LIMIT")
    alert_in_flight_limit: int = Field(default=128, ge=1, validation_alias="QA_ALERT_IN_FLIGHT_LIMIT")
    # An endpoint that failed so often in a row is left alone, at first for so long, and tried by one delivery then.
    alert_breaker_threshold: int = Field(default=5, ge=1, validation_alias="QA_ALERT_BREAKER_THRESHOLD")
    alert_breaker_pause_s: float = Field(default=15.0, gt=0, validation_alias="QA_ALERT_BREAKER_PAUSE_S")
    alert_breaker_max_pause_s: float = Field(default=300.0, gt=0, validation_alias="QA_ALERT_BREAKER_MAX_PAUSE_S")
    # One without any success for so long, and this many failures, is switched off.
    endpoint_off_after_days: float = Field(default=5.0, gt=0, validation_alias="QA_ENDPOINT_OFF_AFTER_DAYS")
    endpoint_off_after_failures: int = Field(default=10, ge=1, validation_alias="QA_ENDPOINT_OFF_AFTER_FAILURES")
    # Alerts leave for https and public addresses only, unless this says otherwise: "10.0.0.0/8,fd00::/8".
    alert_allow_http: bool = Field(default=False, validation_alias="QA_ALERT_ALLOW_HTTP")
    alert_allowed_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(), validation_alias="QA_ALERT_ALLOWED_NETWORKS"
    )
    # Fernet keys, separated by commas: the first encrypts the secrets of endpoints, all of them decrypt.
    secret_keys: SecretStr = Field(default=SecretStr(""), validation_alias="QA_SECRET_KEYS")
    # How long a secret that was rotated out still signs.
    secret_overlap_s: float = Field(default=86_400.0, ge=0, validation_alias="QA_SECRET_OVERLAP_S")
    raise_alerts_every_s: float = Field(default=5.0, gt=0, validation_alias="QA_RAISE_ALERTS_EVERY_S")
    watch_health_every_s: float = Field(default=30.0, gt=0, validation_alias="QA_WATCH_HEALTH_EVERY_S")
    # Dead letters appear on their queue, and leave it, this much later.
    dead_letters_every_s: float = Field(default=5.0, gt=0, validation_alias="QA_DEAD_LETTERS_EVERY_S")
    alert_retention_days: int = Field(default=90, ge=1, validation_alias="QA_ALERT_RETENTION_DAYS")

    # -- doors
    max_transcript_bytes: int = Field(default=512 * 1024, ge=1024, validation_alias="QA_MAX_TRANSCRIPT_BYTES")
    max_turns: int = Field(default=2000, ge=1, validation_alias="QA_MAX_TURNS")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", validation_alias="QA_LOG_LEVEL")

    @field_validator("alert_allowed_networks", "agent_allowed_networks", "agent_python_modules", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("secret_keys")
    @classmethod
    def _fernet_keys(cls, keys: SecretStr) -> SecretStr:
        for key in filter(None, (part.strip() for part in keys.get_secret_value().split(","))):
            if not _FERNET_KEY.fullmatch(key):
                raise ValueError("each key must be 32 bytes in URL-safe base64: 44 characters that end in =")
        return keys

    @field_validator("judge_votes")
    @classmethod
    def _odd(cls, votes: int) -> int:
        if votes % 2 == 0:
            raise ValueError(f"{votes} answers have no majority: write 1 (off), 3, 5, 7 or 9")
        return votes

    @field_validator("backlog_schedule")
    @classmethod
    def _five_fields(cls, schedule: str) -> str:
        fields = schedule.split()
        if fields and (len(fields) != _CRON_FIELDS or not all(_CRON.fullmatch(field) for field in fields)):
            raise ValueError(f"{schedule!r} is no crontab schedule: write five fields, such as 0 2 * * *")
        return " ".join(fields)

    @field_validator("database_url")
    @classmethod
    def _our_driver(cls, url: SecretStr) -> SecretStr:
        """`postgresql://` and `postgres://` are what hosts hand out; here they mean psycopg2."""
        scheme, separator, rest = url.get_secret_value().partition("://")
        return SecretStr(f"postgresql+psycopg2{separator}{rest}") if scheme in ("postgresql", "postgres") else url


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises:
        pydantic.ValidationError: a variable has an impossible value; the message names it.

    """
    return Settings()
