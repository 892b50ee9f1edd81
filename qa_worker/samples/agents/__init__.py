"""The three sample agents as agents under test: instructions, tools with mocks, and a script for playing without a key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def agent_files() -> tuple[Path, ...]:
    """All agent files, by name."""
    return tuple(sorted(Path(str(resources.files(__name__))).glob("*.yaml")))
