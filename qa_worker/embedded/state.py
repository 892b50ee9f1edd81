"""`<home>/state.json`: what runs, for the commands that look at the stack or stop it. It holds passwords: 0600."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from qa_worker.embedded.files import write_private
from qa_worker.embedded.processes import ProcessId, alive, signal_group, wait_gone


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of the stack. `process` is None while it waits for its restart."""

    name: str
    process: ProcessId | None
    restarts: int
    log: str
    is_server: bool = False

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def running(self) -> bool:
        return self.process is not None and alive(self.process)


@dataclass(frozen=True, slots=True)
class StackState:
    """The whole stack. The URLs are None until the servers take clients; `started_at` is ISO 8601 in UTC."""

    supervisor: ProcessId
    phase: Phase
    started_at: str
    parent_pid: int | None = None
    database_url: str | None = None
    broker_url: str | None = None
    ports: dict[str, int] | None = None
    notes: tuple[str, ...] = ()
    processes: tuple[ProcessState, ...] = ()


def state_file(home: Path) -> Path:
    return home / "state.json"


def save(home: Path, state: StackState) -> None:
    """Replaces the file at once, so that a reader sees the old or the new state and nothing between."""
    write_private(state_file(home), json.dumps(asdict(state), indent=1))


def load(home: Path) -> StackState | None:
    """The last state that was written; None when there is none, or it was written by a version that we can't read."""
    try:
        raw = json.loads(state_file(home).read_text())
        return StackState(
            **raw
            | {
                "supervisor": ProcessId(**raw["supervisor"]),
                "phase": Phase(raw["phase"]),
                "notes": tuple(raw["notes"]),
                "processes": tuple(_process(item) for item in raw["processes"]),
            }
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _process(raw: dict[str, object]) -> ProcessState:
    found = raw["process"]
    identity = ProcessId(**found) if isinstance(found, dict) else None
    return ProcessState(**raw | {"process": identity})  # type: ignore[arg-type]


def sweep(home: Path, *, grace_s: float = 10.0) -> tuple[str, ...]:
    """Stops what a killed supervisor left running and forgets its state. The caller holds the lock of the home.

    Returns the names of what had to be stopped.
    """
    state = load(home)
    left = [item for item in state.processes if item.running] if state else []
    _end([item for item in left if not item.is_server], signal.SIGTERM, grace_s)
    # Servers last, so that workers can still hand back what they hold. To PostgreSQL SIGTERM means: wait for clients.
    _end([item for item in left if item.is_server], signal.SIGINT, grace_s)
    state_file(home).unlink(missing_ok=True)
    return tuple(item.name for item in left)


def _end(items: Sequence[ProcessState], number: signal.Signals, grace_s: float) -> None:
    processes = [item.process for item in items if item.process is not None]
    for process in processes:
        signal_group(process.pid, number)
    for process in wait_gone(processes, grace_s):
        signal_group(process.pid, signal.SIGKILL)
    wait_gone(processes, 5.0)
