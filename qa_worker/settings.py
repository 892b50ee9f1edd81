"""Every setting, in one place: read once from the environment, frozen, with the reason for each default.

Empty variables count as unset. Durations are seconds and say so in their name.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment of one process. Importing this module reads nothing; `settings()` does, once."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", populate_by_name=True)

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
    # Celery's own limit, for each worker process alone ("100/m"); empty is none.
    evaluate_rate_limit: str = Field(default="", validation_alias="QA_EVALUATE_RATE_LIMIT")

    # -- database: one pool for each process. No connection is held while the judge is waited for.
    db_pool_size: int = Field(default=10, ge=1, validation_alias="QA_DB_POOL_SIZE")
    db_pool_timeout_s: float = Field(default=30.0, gt=0, validation_alias="QA_DB_POOL_TIMEOUT_S")

    # Results that come within this time share one commit.
    record_window_s: float = Field(default=0.02, ge=0, le=1, validation_alias="QA_RECORD_WINDOW_S")

    # -- alerts. Where people can look at a call: links in alerts begin with it; none without it.
    public_url: str = Field(default="", pattern=r"^(https?://[^\s/]+[^\s]*)?$", validation_alias="QA_PUBLIC_URL")
    # Waits between tries to deliver an alert, each spread by 20 %: about 3 h in all, then it is a dead letter.
    alert_schedule_s: tuple[float, ...] = Field(
        default=(5, 30, 120, 600, 1800, 7200), min_length=1, validation_alias="QA_ALERT_SCHEDULE_S"
    )
    raise_alerts_every_s: float = Field(default=5.0, gt=0, validation_alias="QA_RAISE_ALERTS_EVERY_S")
    watch_health_every_s: float = Field(default=30.0, gt=0, validation_alias="QA_WATCH_HEALTH_EVERY_S")
    alert_retention_days: int = Field(default=90, ge=1, validation_alias="QA_ALERT_RETENTION_DAYS")

    # -- doors
    max_transcript_bytes: int = Field(default=512 * 1024, ge=1024, validation_alias="QA_MAX_TRANSCRIPT_BYTES")
    max_turns: int = Field(default=2000, ge=1, validation_alias="QA_MAX_TURNS")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", validation_alias="QA_LOG_LEVEL")

    @field_validator("judge_votes")
    @classmethod
    def _odd(cls, votes: int) -> int:
        if votes % 2 == 0:
            raise ValueError(f"{votes} answers have no majority: write 1 (off), 3, 5, 7 or 9")
        return votes

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
