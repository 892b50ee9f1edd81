"""Runs a program and tells what its whole process tree took."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_TIMEOUT_S = 900.0
_LOOK_EVERY_S = 0.2


class FailedError(Exception):
    """A tool ran and didn't grade everything. The message says what it said."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Wall and CPU seconds of a run, the highest memory of all its processes together, and its stdout."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    output: str


def watched(command: list[str], env: Mapping[str, str], folder: Path) -> Taken:
    """Run it in `folder`.

    Raises:
        FailedError: its exit status isn't 0, or it takes more than 15 minutes.

    """
    log, errors = folder / "stdout.log", folder / "stderr.log"
    before, started = _cpu_of_the_ended_s(), time.monotonic()
    with log.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(command, cwd=folder, env=dict(env), stdout=out, stderr=err)
    rss_mb = 0.0
    while not _ended(process):
        rss_mb = max(rss_mb, _memory_mb(process.pid))
        if time.monotonic() - started > _TIMEOUT_S:
            _kill(process)
            raise FailedError(f"not done after {_TIMEOUT_S:.0f} s")
    wall_s = time.monotonic() - started
    output = log.read_text("utf-8", errors="replace")
    if process.returncode:
        said = (output + errors.read_text("utf-8", errors="replace")).strip()
        raise FailedError(f"exit status {process.returncode}: {said[-2000:]}")
    return Taken(wall_s, _cpu_of_the_ended_s() - before, rss_mb, output)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_LOOK_EVERY_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _cpu_of_the_ended_s() -> float:
    """Of all that we waited for, and of what those waited for themselves: exact, where samples miss the end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory_mb(pid: int) -> float:
    try:
        root = psutil.Process(pid)
        return float(sum(process.memory_info().rss for process in (root, *root.children(recursive=True))) / 1e6)
    except psutil.NoSuchProcess:
        return 0.0  # one of them ended just now; the next look comes soon


def _kill(process: subprocess.Popen[bytes]) -> None:
    root = psutil.Process(process.pid)
    for one in (*root.children(recursive=True), root):
        one.kill()
    process.wait()
