"""What PostgreSQL and Valkey have in common when we run them: a private folder, a loopback port, a start that waits."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import Signals
from typing import ClassVar

from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import tail
from qa_worker.embedded.processes import free_port, halt

Report = Callable[[str], None]

START_LIMIT_S = 60.0
"""An ordinary start takes a fraction of a second; recovery after a crash may take many."""

_PORT_TRIES = 5


class LocalServer(ABC):
    """One server process on 127.0.0.1, with its data in `folder` and its log in `<home>/logs/<name>.log`.

    With `durable=False` nothing is forced to disk and each start begins with nothing; lasting data are not touched.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stop_steps: ClassVar[tuple[tuple[Signals, float], ...]]
    """Signals that ask it to stop, each with the seconds that it gets."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home.resolve()
        self.durable = durable
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.home / (self.name if self.durable else f"{self.name}.throwaway")

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """For clients, with the password. Valid once `start` has returned."""

    @abstractmethod
    def prepare(self, report: Report) -> None:
        """Everything before the process: folders, passwords, initial data, remains of a killed run."""

    @abstractmethod
    def spawn(self) -> subprocess.Popen[bytes]:
        """Starts the process on `self.port` and returns at once."""

    @abstractmethod
    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it takes clients now."""

    @abstractmethod
    def remove(self) -> None:
        """Deletes its data. Only for a server that is stopped."""

    def start(self, report: Report) -> None:
        """Returns when the server takes clients. Raises `LocalStackError` with the end of its log."""
        began = time.monotonic()
        self.prepare(report)
        for _ in range(_PORT_TRIES):
            self.port = free_port()
            seen = self.log.stat().st_size if self.log.exists() else 0
            self.process = self.spawn()
            if self._ready(self.process, seen):
                report(f"{self.title} is ready on 127.0.0.1:{self.port} ({time.monotonic() - began:.1f} s)")
                return
        raise LocalStackError(f"{self.title} found each of {_PORT_TRIES} free ports taken when it got there")

    def stop(self) -> None:
        """Stops it, by force in the end. Harmless when it does not run."""
        if self.process is not None:
            halt(self.process, *self.stop_steps)
            self.process = None

    def _ready(self, process: subprocess.Popen[bytes], seen: int) -> bool:
        """True: it takes clients. False: someone else took the port meanwhile."""
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                said = tail(self.log, since=seen)
                if "Address already in use" in said:
                    return False
                raise LocalStackError(f"{self.title} ended at its start ({self.log}):\n{said}")
            if self.answers(process):
                return True
            time.sleep(0.02)
        self.stop()
        raise LocalStackError(
            f"{self.title} took no clients within {START_LIMIT_S:.0f} s ({self.log}):\n{tail(self.log, since=seen)}"
        )


def installed_package(name: str) -> Path:
    """The folder of a wheel that brings a server. It is not imported: only the programs in it are of use here."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise LocalStackError(f"the package {name} is not installed: install it, or set DATABASE_URL and BROKER_URL")
    return Path(spec.submodule_search_locations[0])


def start_all(servers: Sequence[LocalServer], report: Report) -> None:
    """Starts them at the same time. When one fails, its error is raised; the caller stops the others."""
    if not servers:
        return
    with ThreadPoolExecutor(max_workers=len(servers)) as pool:
        starts = [pool.submit(server.start, report) for server in servers]
    for start in starts:
        start.result()
