"""Times as options give them."""

from __future__ import annotations

from datetime import UTC, datetime

from qa_worker.domain.errors import InvalidInput


def to_time(option: str, text: str | None) -> datetime | None:
    """A time in UTC, which holds where nothing else is said; None without a text. Raises InvalidInput."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            option, f"{text!r} is no time", "Write ISO 8601, such as 2026-11-23 or 2026-11-23T08:00Z."
        ) from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
