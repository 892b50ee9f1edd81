"""What comes in through files and the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from qa_worker.adapters.importers.files import read_calls as read_calls_from
from qa_worker.adapters.importers.limits import Limits
from qa_worker.application.ports import NamedRubric
from qa_worker.bootstrap.grading import named_rubric
from qa_worker.domain.call import Call
from qa_worker.domain.errors import InvalidInput
from qa_worker.observability import configure
from qa_worker.producer import Producer
from qa_worker.settings import settings


def read_calls(path: Path) -> Iterator[Call | InvalidInput]:
    """The calls of a file; a record that can't be accepted comes as its error, and the others go on."""
    chosen = settings()
    limits = Limits(max_transcript_bytes=chosen.max_transcript_bytes, max_turns=chosen.max_turns)
    return read_calls_from(path, limits=limits, source=str(path))


def read_rubric(path: Path) -> NamedRubric:
    """The rubric of a file. Raises InvalidInput, OSError."""
    return named_rubric(path.read_text(encoding="utf-8"), source=str(path))


def external_services() -> tuple[str | None, str | None]:
    """(DATABASE_URL, BROKER_URL) as the environment gives them; None where it gives none."""
    return os.environ.get("DATABASE_URL") or None, os.environ.get("BROKER_URL") or None


def queue_lengths(broker_url: str) -> dict[str, int]:
    """How many messages wait in each queue. Raises StoreUnavailable where the broker is away."""
    with Producer(broker_url) as producer:
        return producer.queue_lengths()


def log_to_stderr() -> None:
    """Send the log lines of a command to stderr: stdout is for its results."""
    configure(level="WARNING")


def has_api_key() -> bool:
    """True where Claude could be asked."""
    return settings().anthropic_api_key is not None
