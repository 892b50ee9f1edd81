"""Starts, finds and stops the local stack: the module that the CLI and the tests use."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import locked, make_home, open_log, tail
from qa_worker.embedded.postgres import PostgresServer
from qa_worker.embedded.processes import ProcessId, alive, identify, wait_gone
from qa_worker.embedded.secret_key import known_key
from qa_worker.embedded.server import start_all
from qa_worker.embedded.spec import Command, StackSpec
from qa_worker.embedded.state import Phase, ProcessState, StackState, load, sweep
from qa_worker.embedded.valkey import ValkeyServer

__all__ = [
    "Command",
    "LocalStackError",
    "RunningStack",
    "StackSpec",
    "clean_up",
    "remove",
    "running",
    "servers",
    "start",
]

_HURRIED_STOP_S = 40.0
"""The bound of a stop without the workers' grace: the servers get 25 s at most."""


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack whose supervisor was seen running. What it tells is read anew each time."""

    home: Path
    supervisor: ProcessId

    @property
    def state(self) -> StackState:
        """Raises `LocalStackError` when it has stopped meanwhile."""
        state = load(self.home)
        if state is None or state.supervisor.pid != self.supervisor.pid or not alive(self.supervisor):
            raise LocalStackError(f"the local stack in {self.home} does not run any more")
        return state

    @property
    def database_url(self) -> str:
        return self._known(self.state.database_url)

    @property
    def broker_url(self) -> str:
        return self._known(self.state.broker_url)

    @property
    def secret_keys(self) -> str | None:
        """What the secrets in its own database are encrypted with, as QA_SECRET_KEYS has it."""
        return known_key(self.home)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know: where PostgreSQL went because this is root."""
        return self.state.notes

    @property
    def processes(self) -> tuple[ProcessState, ...]:
        """Servers first, then the rest in the order of the spec."""
        return self.state.processes

    @property
    def healthy(self) -> bool:
        """Everything was started and every process runs at this moment."""
        try:
            state = self.state
        except LocalStackError:
            return False
        return state.phase is Phase.READY and all(process.running for process in state.processes)

    def stop(self, timeout_s: float = 210.0) -> None:
        """Asks for an orderly stop; after `timeout_s` the workers lose their grace. Returns when nothing runs."""
        steps = ((signal.SIGTERM, timeout_s), (signal.SIGTERM, _HURRIED_STOP_S), (signal.SIGKILL, 5.0))
        for number, patience in steps:
            if alive(self.supervisor):
                os.kill(self.supervisor.pid, number)
            if not wait_gone([self.supervisor], patience):
                break
        # After an orderly stop there is nothing left. Whoever holds the lock by now has started anew.
        with suppress(LocalStackError):
            clean_up(self.home)

    def _known(self, url: str | None) -> str:
        if url is None:
            raise LocalStackError(f"the local stack in {self.home} is still starting")
        return url


def start(spec: StackSpec, *, detached: bool, on_progress: Callable[[str], None]) -> RunningStack:
    """Starts a stack and returns when its servers take clients, its set-up is done and its processes are started.

    `detached`: it outlives this process and its terminal; otherwise it stops by itself when this process is gone.
    Raises `LocalStackError`: one runs in this home already, a server or a set-up command failed.
    """
    home = spec.home.resolve()
    make_home(home)
    argv = [sys.executable, "-m", "qa_worker.embedded.supervisor", "--home", str(home)]
    if not detached:
        argv += ["--parent", str(os.getpid())]
    with (
        open_log(_supervisor_log(home)) as log,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        ) as launcher,
    ):
        if launcher.stdin is None or launcher.stdout is None:
            raise LocalStackError("no pipe to the supervisor")
        with launcher.stdin as pipe, suppress(BrokenPipeError):
            pipe.write(spec.to_json().encode())
        return _follow(home, launcher.stdout, on_progress)


def _follow(home: Path, messages: IO[bytes], on_progress: Callable[[str], None]) -> RunningStack:
    """Passes progress on until the supervisor says ready. If we are interrupted, the half-started stack is stopped."""
    supervisor: ProcessId | None = None
    ready = False
    try:
        for line in messages:
            message = json.loads(line)
            if "progress" in message:
                on_progress(message["progress"])
            if "supervisor" in message:
                supervisor = identify(message["supervisor"])
            if "error" in message:
                raise LocalStackError(message["error"])
            if "ready" in message and supervisor is not None:
                ready = True
                return RunningStack(home, supervisor)
    finally:
        if supervisor is not None and not ready and alive(supervisor):
            os.kill(supervisor.pid, signal.SIGTERM)
    raise LocalStackError(f"the supervisor died at its start:\n{tail(_supervisor_log(home))}")


def running(home: Path) -> RunningStack | None:
    """The stack of this home, if its supervisor runs; it may still be starting, or be stopping."""
    home = home.resolve()
    state = load(home)
    if state is None or not alive(state.supervisor):
        return None
    return RunningStack(home, state.supervisor)


def clean_up(home: Path) -> tuple[str, ...]:
    """Stops what a killed supervisor left running; returns the names. Raises `LocalStackError` when a stack runs."""
    home = home.resolve()
    if not home.is_dir():
        return ()
    with locked(home):
        return sweep(home)


def remove(home: Path) -> None:
    """Deletes what a stopped stack has stored, wherever that is. Raises `LocalStackError` when a stack runs."""
    clean_up(home)
    for server in (PostgresServer(home), ValkeyServer(home)):
        server.remove()
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def servers(home: Path, *, durable: bool = True) -> Iterator[tuple[str, str]]:
    """PostgreSQL and Valkey as children of this process: yields (database_url, broker_url).

    `durable=False` is for tests: nothing is forced to disk, and the data are in a folder of their own below `home` that
    is deleted at the end, so that any number of them can share one home.
    """
    make_home(home)
    if durable:
        with locked(home), _both(home, durable=True) as urls:
            yield urls
        return
    throwaway = home / f"throwaway-{secrets.token_hex(4)}"
    make_home(throwaway)
    try:
        with _both(throwaway, durable=False) as urls:
            yield urls
    finally:
        shutil.rmtree(throwaway, ignore_errors=True)


@contextmanager
def _both(home: Path, *, durable: bool) -> Iterator[tuple[str, str]]:
    postgres = PostgresServer(home, durable=durable)
    valkey = ValkeyServer(home, durable=durable)
    try:
        start_all((postgres, valkey), lambda _text: None)
        yield postgres.url, valkey.url
    finally:
        valkey.stop()
        postgres.stop()
        if not durable:
            postgres.remove()
            valkey.remove()


def _supervisor_log(home: Path) -> Path:
    return home / "logs" / "supervisor.log"
