"""Long-running child processes: restarted with growing pauses, stopped together and within bounds."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.processes import identify, signal_group
from qa_worker.embedded.state import ProcessState

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before the first, second ... restart in a row. A Celery worker that a broker restart ended is back in a second."""

STABLE_AFTER_S = 60.0
"""Having run this long, a process that ends starts again from the first pause."""

_KILL_TAKES_S = 5.0

Step = tuple[signal.Signals, float]
log = logging.getLogger(__name__)


class Child:
    """One process that is kept running until it is stopped. `stop_steps`: signals, each with its seconds."""

    def __init__(
        self,
        name: str,
        spawn: Callable[[], subprocess.Popen[bytes]],
        *,
        log_file: Path,
        stop_steps: tuple[Step, ...],
        is_server: bool = False,
    ) -> None:
        self.name = name
        self.stop_steps = stop_steps
        self.is_server = is_server
        self.process: subprocess.Popen[bytes] | None = None
        self._spawn = spawn
        self._log_file = log_file
        self._restarts = 0
        self._failures = 0
        self._since = 0.0
        self._due = 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def state(self) -> ProcessState:
        process = identify(self.process.pid) if self.process else None
        return ProcessState(self.name, process, self._restarts, str(self._log_file), self.is_server)

    def start(self) -> None:
        """Starts it now. Raises `OSError` when the program cannot be run."""
        self.adopt(self._spawn())

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Takes over a process that was started elsewhere."""
        self.process = process
        self._since = time.monotonic()
        log.info("%s runs as %d", self.name, process.pid)

    def tend(self) -> bool:
        """Notices an exit, restarts what is due. True when something changed."""
        if self.process is None:
            return time.monotonic() >= self._due and self._restart()
        code = self.process.poll()
        if code is None:
            return False
        # What the dead one had started itself must not go on beside its successor.
        signal_group(self.process.pid, signal.SIGKILL)
        if time.monotonic() - self._since >= STABLE_AFTER_S:
            self._failures = 0
        self._await_restart(f"ended with {code}")
        return True

    def _restart(self) -> bool:
        self._restarts += 1
        try:
            self.start()
        except (OSError, LocalStackError) as error:
            self._await_restart(f"could not be started: {error}")
        return True

    def _await_restart(self, reason: str) -> None:
        pause = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        self.process = None
        self._due = time.monotonic() + pause
        log.warning("%s %s, starts again in %.0f s", self.name, reason, pause)


class _Ending:
    """One child on its way out: the signals that are left to send, and when the next one is due."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], steps: tuple[Step, ...]) -> None:
        self._name = name
        self._process = process
        self._steps = [*steps, (signal.SIGKILL, _KILL_TAKES_S)]
        self._due = 0.0

    def over(self, *, hurry: bool) -> bool:
        """Sends the next signal if it is due. True when the process is gone, or past helping."""
        if self._process.poll() is not None:
            signal_group(self._process.pid, signal.SIGKILL)
            return True
        if not hurry and time.monotonic() < self._due:
            return False
        if not self._steps:
            log.error("%s (%d) outlives SIGKILL", self._name, self._process.pid)
            return True
        number, seconds = self._steps.pop(0)
        self._due = time.monotonic() + seconds
        if number is signal.SIGKILL:
            log.warning("%s did not stop in time and is killed", self._name)
            signal_group(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return False


def stop_together(children: Sequence[Child], wait: Callable[[float], None], hurried: Callable[[], bool]) -> None:
    """Stops them at the same time, each by its own steps, and with SIGKILL to its group in the end.

    Once `hurried` says so, no step gets more than a moment.
    """
    endings = [_Ending(child.name, child.process, child.stop_steps) for child in children if child.process is not None]
    while endings := [ending for ending in endings if not ending.over(hurry=hurried())]:
        wait(0.1)
    for child in children:
        child.process = None
