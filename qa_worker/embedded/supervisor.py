"""The process that owns a local stack: `python -m qa_worker.embedded.supervisor --home DIR [--parent PID] < spec.json`.

It starts the servers, runs the set-up commands, keeps the processes running and stops all of it on SIGTERM or SIGINT,
or when the parent is gone. A second signal cuts the workers' grace short.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from qa_worker.embedded.children import Child, stop_together
from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import bound_log, locked, open_log, tail
from qa_worker.embedded.postgres import PostgresServer
from qa_worker.embedded.processes import ProcessId, alive, halt, identify, this_process
from qa_worker.embedded.secret_key import made_key
from qa_worker.embedded.server import LocalServer, start_all
from qa_worker.embedded.signals import Signals
from qa_worker.embedded.spec import Command, StackSpec
from qa_worker.embedded.state import Phase, StackState, save, state_file, sweep
from qa_worker.embedded.valkey import ValkeyServer

_TICK_S = 0.5
"""How soon a dead parent or a due restart is noticed. Signals and exits are noticed at once."""

_LOOK_AT_LOGS_EVERY_S = 60.0

_SETUP_LIMIT_TICKS = 600
"""Five minutes for one set-up command."""

log = logging.getLogger(__name__)


class Starter:
    """The program that started us, as long as it listens: it reads one JSON object per line."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def say(self, **message: object) -> None:
        log.info("%s", message)
        # It may be gone; whether that matters is decided by watching the parent.
        with suppress(BrokenPipeError):
            os.write(self._handle, json.dumps(message).encode() + b"\n")

    def progress(self, text: str) -> None:
        self.say(progress=text)


class _StopAskedError(Exception):
    """A signal came or the parent is gone."""


class Supervisor:
    """Runs one stack, from nothing to nothing."""

    def __init__(self, spec: StackSpec, *, parent: ProcessId | None, starter: Starter, signals: Signals) -> None:
        self._spec = spec
        self._parent = parent
        self._starter = starter
        self._signals = signals
        self._postgres = PostgresServer(spec.home, durable=spec.durable) if spec.database_url is None else None
        self._valkey = ValkeyServer(spec.home, durable=spec.durable) if spec.broker_url is None else None
        self._servers: list[Child] = []
        self._processes: list[Child] = []
        self._next_look_at_logs = 0.0
        own = this_process()
        self._state = StackState(
            supervisor=own,
            phase=Phase.STARTING,
            started_at=datetime.fromtimestamp(own.started_at, UTC).isoformat(timespec="seconds"),
            parent_pid=parent.pid if parent else None,
        )

    def run(self) -> None:
        """Returns when everything is stopped again. Raises `LocalStackError` when the start failed."""
        try:
            for name in sweep(self._spec.home):
                self._starter.progress(f"stopped {name}, which an earlier run left behind")
            self._publish()
            self._start_servers()
            for command in self._spec.setup:
                self._set_up(command)
            self._start_processes()
            self._publish(Phase.READY)
            self._starter.say(ready=True)
            self._tend()
        except _StopAskedError:
            if self._state.phase is Phase.STARTING:
                self._starter.say(error="it was stopped before it was ready")
        finally:
            self._stop()

    def _start_servers(self) -> None:
        servers = [server for server in (self._postgres, self._valkey) if server is not None]
        for server in servers:
            self._servers.append(
                Child(server.name, server.spawn, log_file=server.log, stop_steps=server.stop_steps, is_server=True)
            )
        try:
            start_all(servers, self._starter.progress)
        finally:
            for child, server in zip(self._servers, servers, strict=True):
                if server.process is not None:
                    child.adopt(server.process)
        notes = (self._postgres.note,) if self._postgres else ()
        self._state = replace(
            self._state,
            database_url=self._spec.database_url or _url(self._postgres),
            broker_url=self._spec.broker_url or _url(self._valkey),
            ports={server.name: server.port for server in servers},
            notes=tuple(note for note in notes if note),
        )
        self._publish()

    def _set_up(self, command: Command) -> None:
        self._starter.progress(f"running {command.name}")
        process = _spawn(command, self._environment(command), self._log_of(command))
        try:
            for _ in range(_SETUP_LIMIT_TICKS):
                if process.poll() is not None:
                    break
                self._pause()
        finally:
            halt(process, (signal.SIGTERM, 5.0))
        if process.returncode != 0:
            said = tail(self._log_of(command))
            raise LocalStackError(f"{command.name} failed with {process.returncode}:\n{said}")

    def _start_processes(self) -> None:
        for command in self._spec.processes:
            self._check()
            log_file = self._log_of(command)
            spawn = partial(_spawn, command, self._environment(command), log_file)
            steps = ((signal.SIGTERM, command.grace_s),)
            child = Child(command.name, spawn, log_file=log_file, stop_steps=steps)
            try:
                child.start()
            except OSError as error:
                raise LocalStackError(f"{command.name} cannot be started: {error}") from error
            self._processes.append(child)
            self._publish()
            self._starter.progress(f"started {command.name}")

    def _tend(self) -> None:
        while True:
            self._pause()
            # All of them, also when the first one changed.
            if any([child.tend() for child in (*self._servers, *self._processes)]):  # noqa: C419
                self._publish()
            self._bound_logs()

    def _bound_logs(self) -> None:
        if time.monotonic() < self._next_look_at_logs:
            return
        self._next_look_at_logs = time.monotonic() + _LOOK_AT_LOGS_EVERY_S
        try:
            for path in (self._spec.home / "logs").glob("*.log"):
                bound_log(path)
        except OSError as error:
            log.warning("the logs cannot be cut: %s", error)

    def _pause(self) -> None:
        """Waits for a signal, a child's exit or the next tick."""
        self._signals.wait(_TICK_S)
        self._check()

    def _check(self) -> None:
        if self._signals.stops or (self._parent is not None and not alive(self._parent)):
            raise _StopAskedError

    def _stop(self) -> None:
        """In the order in which they need each other: schedulers, workers, broker, database."""
        self._publish(Phase.STOPPING)
        first = {command.name for command in self._spec.processes if command.stop_first}
        self._stop_stage([child for child in self._processes if child.name in first])
        self._stop_stage([child for child in self._processes if child.name not in first])
        for child in reversed(self._servers):
            stop_together([child], self._signals.wait, hurried=lambda: False)
        for server in (self._postgres, self._valkey):
            if server is not None and not self._spec.durable:
                server.remove()
        state_file(self._spec.home).unlink(missing_ok=True)

    def _stop_stage(self, children: list[Child]) -> None:
        stop_together(children, self._signals.wait, hurried=lambda: self._signals.stops > 1)

    def _publish(self, phase: Phase | None = None) -> None:
        states = tuple(child.state for child in (*self._servers, *self._processes))
        self._state = replace(self._state, phase=phase or self._state.phase, processes=states)
        try:
            save(self._spec.home, self._state)
        except OSError as error:
            # A full disk or a removed home must not keep us from tending, or from stopping, what runs.
            log.warning("the state cannot be written: %s", error)

    def _environment(self, command: Command) -> Mapping[str, str]:
        urls = {"DATABASE_URL": self._state.database_url or "", "BROKER_URL": self._state.broker_url or ""}
        return {**os.environ, **self._keys(), **urls, **command.env}

    def _keys(self) -> Mapping[str, str]:
        """The key for the secrets in our own database, unless the environment has one."""
        if self._spec.database_url or os.environ.get("QA_SECRET_KEYS"):
            return {}
        return {"QA_SECRET_KEYS": made_key(self._spec.home)}

    def _log_of(self, command: Command) -> Path:
        return self._spec.home / "logs" / f"{command.name}.log"


def _url(server: LocalServer | None) -> str | None:
    return server.url if server else None


def _spawn(command: Command, environment: Mapping[str, str], log_file: Path) -> subprocess.Popen[bytes]:
    with open_log(log_file) as output:
        return subprocess.Popen(
            command.argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _detach() -> None:
    """Lives on in a child of its own, so that the starter has nobody to wait for; speaks through the pipe it was given."""
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def main() -> int:
    """Tells the starter how it went, through standard output; later events go to standard error, the log."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args()
    spec = replace(StackSpec.from_json(sys.stdin.read()), home=options.home)
    parent = identify(options.parent) if options.parent else None
    if options.parent and parent is None:
        return 1
    _detach()
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    signals = Signals()
    starter = Starter(1)
    starter.say(supervisor=os.getpid())
    try:
        with locked(spec.home):
            Supervisor(spec, parent=parent, starter=starter, signals=signals).run()
    except LocalStackError as error:
        starter.say(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
