"""Which process is which: pids are reused, so a process is its pid and its start time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAME_START_S = 2.0
"""A clock correction moves the start times that Linux reports by up to about a second."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be taken for a later one with its number. `started_at` is in epoch seconds."""

    pid: int
    started_at: float


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now; None when there is none, or only its exit code is left."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(pid, float(process.create_time()))
    except psutil.NoSuchProcess:
        return None


def this_process() -> ProcessId:
    """The process that asks."""
    return ProcessId(os.getpid(), float(psutil.Process().create_time()))


def alive(process: ProcessId) -> bool:
    """Whether that very process still runs."""
    current = identify(process.pid)
    return current is not None and abs(current.started_at - process.started_at) < _SAME_START_S


def inhabitants(folder: Path, name: str) -> list[ProcessId]:
    """Processes called `name` that work in `folder`: servers that an earlier, killed run left behind."""
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != name:
            continue
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()) == folder:
                found.append(ProcessId(process.pid, float(process.create_time())))
    return found


def wait_gone(processes: Sequence[ProcessId], seconds: float) -> list[ProcessId]:
    """Waits until none of them runs, at most `seconds`; returns those that still do."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signals the process group that `leader` started as its first member; a group that is gone is no error."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def halt(child: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> None:
    """Sends each signal in turn and waits its seconds; what is left of the group then gets SIGKILL."""
    for number, seconds in steps:
        if child.poll() is not None:
            break
        child.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
    signal_group(child.pid, signal.SIGKILL)
    child.wait()


def free_port() -> int:
    """A loopback port that nobody listens on at the moment. Someone may take it before we do: be ready to try again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
