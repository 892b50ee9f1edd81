"""Real worker processes, started as the README says, with everything that waits made short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from qa_worker.cli.stack_spec import beat_arguments, worker_arguments
from qa_worker.messages import Queue

LEASE_S = 3.0


@dataclass
class Workers:
    """Starts and ends worker processes on one database and broker."""

    env: dict[str, str]
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, queue: Queue, *, ready: bool = True) -> subprocess.Popen[bytes]:
        """A worker of one queue; returns when it takes messages."""
        log = self.folder / f"{queue.value}-{len(self.running)}.log"
        process = self._spawn(worker_arguments(queue), log)
        if ready:
            eventually(lambda: b" ready." in log.read_bytes(), what=f"{queue.value} is ready", log=log)
        return process

    def start_beat(self) -> subprocess.Popen[bytes]:
        """Beat."""
        return self._spawn(beat_arguments(str(self.folder / "schedule")), self.folder / "beat.log")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL: nothing is cleaned up."""
        process.kill()
        process.wait(10)

    def logs(self) -> str:
        """All that was logged."""
        return "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """End what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)

    def _spawn(self, arguments: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=self.env, stdout=sink, stderr=sink, start_new_session=True
            )
        self.running.append(process)
        return process


@contextmanager
def workers(
    *, database_url: str, broker_url: str, folder: Path, extra: dict[str, str] | None = None
) -> Iterator[Workers]:
    """Workers that are ended with the block."""
    env = {
        **os.environ,
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "QA_LEASE_S": str(LEASE_S),
        "QA_RESCUE_EVERY_S": "1",
        "QA_DISPATCH_EVERY_S": "0.5",
        "QA_RESEND_AFTER_S": "3",
        "QA_RETRY_SCHEDULE_S": "[0.5, 1]",
        **(extra or {}),
    }
    made = Workers(env, folder)
    try:
        yield made
    finally:
        made.stop()


def eventually(true: Callable[[], bool], *, what: str, within_s: float = 60.0, log: Path | None = None) -> None:
    """Wait until it is true; say what was waited for when it never is."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-3000:] if log is not None else ""
            raise AssertionError(f"waited {within_s} s in vain: {what}\n{tail}")
        time.sleep(0.05)
