"""Which database and broker a command talks to: the environment's, the running local stack's, or a temporary one's."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from qa_worker import bootstrap
from qa_worker.cli.console import errors
from qa_worker.cli.stack_spec import stack_spec
from qa_worker.embedded import stack as embedded
from qa_worker.embedded.stack import LocalStackError, RunningStack, StackSpec


@dataclass(frozen=True, slots=True)
class Place:
    """Where the work is done. `temporary`: it ends, and its data with it, when the command does."""

    client: bootstrap.Client
    temporary: bool


def home() -> Path:
    """Where the local stack keeps its data: QA_WORKER_HOME, or a folder of its own in the user's state folder."""
    chosen = os.environ.get("QA_WORKER_HOME")
    if chosen:
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "qa-worker"


@contextmanager
def existing() -> Iterator[bootstrap.Client]:
    """The services of the environment, or else the running local stack. Raises LocalStackError where there is neither."""
    database_url, broker_url = bootstrap.external_services()
    running = embedded.running(home())
    keys = None if running is None else _keys_for(running, database_url)
    if database_url is None or broker_url is None:
        if running is None:
            raise LocalStackError(
                "no local stack is running, and DATABASE_URL and BROKER_URL are not set. Run `qa-worker up`"
            )
        database_url, broker_url = database_url or running.database_url, broker_url or running.broker_url
    with _client(database_url, broker_url, keys) as client:
        yield client


def _keys_for(running: RunningStack, database_url: str | None) -> str | None:
    """The stack's key belongs to its own database, also where DATABASE_URL names that one; None for any other."""
    if database_url is None:
        return running.secret_keys
    try:
        its_own = running.database_url
    except LocalStackError:
        return None  # it has stopped meanwhile
    # Whichever driver the URL names.
    return running.secret_keys if database_url.partition("://")[2] == its_own.partition("://")[2] else None


@contextmanager
def existing_or_temporary(changes: Mapping[str, object] | None = None) -> Iterator[Place]:
    """As `existing`; where there is nothing, a stack that lives as long as the block, with these settings changed."""
    database_url, broker_url = bootstrap.external_services()
    if (database_url and broker_url) or embedded.running(home()) is not None:
        with existing() as client:
            yield Place(client, temporary=False)
        return
    with _temporary_home() as folder:
        spec = stack_spec(folder, database_url=database_url, broker_url=broker_url, flower=None, durable=False)
        spec = _changed(spec, changes or {})
        with errors.status("Starting a temporary stack ...") as progress:
            running = embedded.start(
                spec, detached=False, on_progress=lambda text: progress.update(f"Starting a temporary stack: {text}")
            )
        for note in running.notes:
            errors.print(note, style="dim")
        try:
            with _client(running.database_url, running.broker_url, running.secret_keys, changes) as client:
                yield Place(client, temporary=True)
        finally:
            with errors.status("Stopping the temporary stack ..."):
                running.stop(timeout_s=20)


@contextmanager
def _client(
    database_url: str, broker_url: str, secret_keys: str | None, changes: Mapping[str, object] | None = None
) -> Iterator[bootstrap.Client]:
    client = bootstrap.Client(
        database_url=database_url, broker_url=broker_url, secret_keys=secret_keys, changes=changes
    )
    try:
        yield client
    finally:
        client.close()


def _changed(spec: StackSpec, changes: Mapping[str, object]) -> StackSpec:
    """The stack whose processes have these settings changed."""
    env = {name: value if isinstance(value, str) else json.dumps(value) for name, value in changes.items()}
    processes = (replace(command, env={**command.env, **env}) for command in spec.processes)
    return replace(spec, processes=tuple(processes))


@contextmanager
def _temporary_home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="qa-worker-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
