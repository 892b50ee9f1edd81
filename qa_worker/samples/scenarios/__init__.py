"""Ready scenarios for the three sample agents. Every name, number and address in them is made up."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def scenario_files() -> tuple[Path, ...]:
    """All scenario files, by name."""
    return tuple(sorted(Path(str(resources.files(__name__))).glob("*.yaml")))
