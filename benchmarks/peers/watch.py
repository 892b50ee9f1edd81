"""Runs a program and tells what its whole process tree took, before and after the first request that it sent."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_TIMEOUT_S = 900.0
_LOOK_EVERY_S = 0.1


class FailedError(Exception):
    """A tool ran and didn't grade everything. The message says what it said."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Wall and CPU seconds of a run, those until its first request was seen, the highest memory, and its stdout."""

    wall_s: float
    cpu_s: float
    start_s: float
    start_cpu_s: float
    rss_mb: float
    output: str


def watched(command: list[str], env: Mapping[str, str], folder: Path, *, begun: Callable[[], bool]) -> Taken:
    """Run it in `folder`; `begun` tells whether a request has come.

    Raises:
        FailedError: its exit status isn't 0, or it takes more than 15 minutes.

    """
    log, errors = folder / "stdout.log", folder / "stderr.log"
    before, started = _cpu_of_the_ended_s(), time.monotonic()
    with log.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(command, cwd=folder, env=dict(env), stdout=out, stderr=err)
    start, rss_mb = None, 0.0
    while not _ended(process):
        tree = _tree(process.pid)
        rss_mb = max(rss_mb, sum(mb for mb, _ in tree))
        if start is None and begun():
            start = time.monotonic() - started, sum(cpu_s for _, cpu_s in tree)
        if time.monotonic() - started > _TIMEOUT_S:
            _kill(process)
            raise FailedError(f"not done after {_TIMEOUT_S:.0f} s")
    wall_s = time.monotonic() - started
    output = log.read_text("utf-8", errors="replace")
    if process.returncode:
        said = (output + errors.read_text("utf-8", errors="replace")).strip()
        raise FailedError(f"exit status {process.returncode}: {said[-2000:]}")
    return Taken(wall_s, _cpu_of_the_ended_s() - before, *(start or (0.0, 0.0)), rss_mb, output)


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


def _tree(pid: int) -> list[tuple[float, float]]:
    """MB and CPU seconds of each process, with those of its ended children."""
    try:
        root = psutil.Process(pid)
        return [
            (process.memory_info().rss / 1e6, sum(process.cpu_times()[:4]))
            for process in (root, *root.children(recursive=True))
        ]
    except psutil.NoSuchProcess:
        return []  # one of them ended just now; the next look is 0.1 s away


def _kill(process: subprocess.Popen[bytes]) -> None:
    root = psutil.Process(process.pid)
    for one in (*root.children(recursive=True), root):
        one.kill()
    process.wait()
