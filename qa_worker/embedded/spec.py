"""What a local stack consists of, as data. The caller decides it; nothing here knows Celery or the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run. It gets our environment, DATABASE_URL and BROKER_URL, and `env` on top.

    `grace_s` is what it gets between SIGTERM and SIGKILL. Those with `stop_first` are stopped before the others are
    asked: the scheduler and the monitor before the workers.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    grace_s: float = 10.0
    stop_first: bool = False


@dataclass(frozen=True, slots=True)
class StackSpec:
    """A server is started for each URL that is None. `setup` runs in order and must succeed before `processes` start.

    With `durable=False` the servers force nothing to disk and their data are deleted when the stack stops.
    """

    home: Path
    database_url: str | None = None
    broker_url: str | None = None
    setup: tuple[Command, ...] = ()
    processes: tuple[Command, ...] = ()
    durable: bool = True

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"home": str(self.home)})

    @classmethod
    def from_json(cls, text: str) -> StackSpec:
        raw = json.loads(text)
        return cls(
            home=Path(raw["home"]),
            database_url=raw["database_url"],
            broker_url=raw["broker_url"],
            setup=tuple(_command(item) for item in raw["setup"]),
            processes=tuple(_command(item) for item in raw["processes"]),
            durable=raw["durable"],
        )


def _command(raw: dict[str, object]) -> Command:
    return Command(**{**raw, "argv": tuple(raw["argv"])})  # type: ignore[arg-type]
