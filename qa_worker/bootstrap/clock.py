"""The world's clock and dice, and the log's context."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import structlog

log = structlog.get_logger(__name__)


class SystemClock:
    """Implements the port `Clock`."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)  # noqa: TID251 - this is the clock


class RandomJitter:
    """Implements the port `Jitter`."""

    def fraction(self) -> float:
        """See the port."""
        return random.random()  # noqa: S311 - spreads retries, guards nothing


class StructlogContext:
    """Implements the port `LogContext`."""

    def bind(self, **ids: str | int) -> None:
        """See the port."""
        structlog.contextvars.bind_contextvars(**ids)

    def fault(self, error: Exception, **ids: str | int) -> None:
        """See the port."""
        log.error("task_failed", exc_info=error, **ids)
