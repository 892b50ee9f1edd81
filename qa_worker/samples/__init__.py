"""Sample calls of three made-up agents, for the demo and for our own tests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_NAMES = ("booking.jsonl", "support.jsonl", "clinic_chat.jsonl")


def sample_files() -> tuple[Path, ...]:
    """The files with the sample calls: two in our own format, and the clinic's as chat messages."""
    folder = Path(str(resources.files(__name__)))
    return tuple(folder / name for name in _NAMES)
