"""The rubrics that come with the package."""

from __future__ import annotations

from importlib import resources


def default_rubric_text() -> str:
    """The YAML text of the rubric that calls are graded by where the user names none."""
    return (resources.files(__name__) / "voice_agent.yaml").read_text(encoding="utf-8")
