"""Commands as a user runs them: programs of their own, with their exit codes, stdout and stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from qa_worker.messages import Queue
from tests.e2e.workers import workers


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """stdout as JSON lines: fails where anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Cli:
    """Runs `qa-worker` with an environment of its own."""

    env: dict[str, str]

    def __call__(self, *arguments: str | Path, **extra: str) -> Ran:
        ran = subprocess.run(
            [sys.executable, "-m", "qa_worker.cli.main", *map(str, arguments)],
            env={**self.env, **extra},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """A new user: an empty HOME, no services, no key."""
    home = tmp_path / "home"
    home.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    return Cli(env)


@pytest.fixture
def cli(bare: Cli, database_url: str, broker_url: str, engine: Engine) -> Cli:
    """With services that run elsewhere."""
    assert engine.url.database
    return Cli({**bare.env, "DATABASE_URL": database_url, "BROKER_URL": broker_url})


@pytest.fixture
def served(cli: Cli, database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Cli]:
    """With a worker that grades."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with workers(database_url=database_url, broker_url=broker_url, folder=folder) as fleet:
        fleet.start(Queue.EVALUATE_CALL)
        yield cli


def a_record(ref: str = "call-1", **changes: Any) -> dict[str, Any]:
    """A call as a JSON record: a good one, which the rules judge can measure in every criterion."""
    return {
        "id": ref,
        "agent": {"id": "booking", "name": "Booking", "tools": [{"name": "move_booking"}]},
        "turns": [
            {"role": "agent", "text": "Hello, this call is recorded. How can I help?"},
            {"role": "caller", "text": "Please move booking A7 to Friday."},
            {"role": "agent", "tool_calls": [{"id": "t", "name": "move_booking", "arguments": {"id": "A7"}}]},
            {"role": "tool", "tool_call_id": "t", "text": '{"status": "success"}'},
            {"role": "agent", "text": "Booking A7 is on Friday now. Goodbye."},
        ],
        "expected": {"required_tools": ["move_booking"], "required_phrases": ["call is recorded"]},
        **changes,
    }


def write(path: Path, *records: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
