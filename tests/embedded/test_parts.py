"""The parts of the local stack that need no server."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qa_worker.embedded import account
from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import LOG_LIMIT_BYTES, bound_log, locked, make_folder, open_log, tail, write_private
from qa_worker.embedded.processes import ProcessId, alive, halt, identify, this_process, wait_gone
from qa_worker.embedded.spec import Command, StackSpec
from qa_worker.embedded.state import Phase, ProcessState, StackState, load, save, state_file


def test_a_spec_survives_the_way_to_the_supervisor(tmp_path: Path) -> None:
    spec = StackSpec(
        home=tmp_path,
        broker_url="redis://elsewhere:6379/0",
        setup=(Command("migrate", ("true",)),),
        processes=(Command("beat", ("celery", "beat"), {"A": "ü"}, grace_s=1.5, stop_first=True),),
    )
    assert StackSpec.from_json(spec.to_json()) == spec


def test_a_state_is_read_as_it_was_written_and_only_by_its_owner(tmp_path: Path) -> None:
    waiting = ProcessState("worker", None, restarts=2, log="worker.log")
    server = ProcessState("valkey", ProcessId(41, 1.25), restarts=0, log="valkey.log", is_server=True)
    state = StackState(
        supervisor=this_process(),
        phase=Phase.READY,
        started_at="2026-11-01T00:00:00+00:00",
        ports={"valkey": 4711},
        notes=("a note",),
        processes=(server, waiting),
    )
    save(tmp_path, state)
    assert load(tmp_path) == state
    assert stat.S_IMODE(state_file(tmp_path).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"supervisor": 3}', '{"supervisor": {"pid": 1}}'])
def test_a_state_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str) -> None:
    state_file(tmp_path).write_text(content)
    assert load(tmp_path) is None


def test_a_log_that_has_grown_too_long_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    path, older = tmp_path / "worker.log", tmp_path / "worker.log.1"
    with open_log(path) as log:
        log.write(b"x" * LOG_LIMIT_BYTES)
        log.flush()
        bound_log(path)
        assert not older.exists()
        log.write(b"x")
        log.flush()
        bound_log(path)
        # The writer goes on at the beginning, without a hole.
        log.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert older.stat().st_size == LOG_LIMIT_BYTES + 1
    assert stat.S_IMODE(older.stat().st_mode) == 0o600


def test_a_tail_begins_where_the_run_began(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("old\nnew 1\nnew 2\n")
    assert tail(path, since=4) == "new 1\nnew 2"
    assert tail(path, lines=1) == "new 2"
    assert tail(tmp_path / "none.log") == ""


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o750)
    folder.chmod(0o750)
    make_folder(folder, 0o711)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(LocalStackError, match="home is in the way"):
        make_folder(tmp_path / "home")


def test_a_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_home_is_for_one_stack_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(LocalStackError, match="already runs"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_reused_pid_is_another_process() -> None:
    this = this_process()
    assert alive(this)
    assert not alive(ProcessId(this.pid, this.started_at - 60))


def test_a_process_of_which_only_the_exit_code_is_left_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert identify(child.pid) is None


def test_a_child_that_ignores_signals_is_killed_with_its_group() -> None:
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        grandchild = identify(int(child.stdout.readline()))
        halt(child, (signal.SIGTERM, 0.05))
        assert child.returncode == -signal.SIGKILL
        assert grandchild is not None
        assert wait_gone([grandchild], 5) == []


def test_a_folder_that_others_could_have_prepared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(LocalStackError, match="remove it"):
        account.make_trusted(tmp_path / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(LocalStackError, match="remove it"):
        account.make_trusted(tmp_path / "open")


def test_copies_of_the_programs_can_be_made_twice_and_are_for_everyone(tmp_path: Path) -> None:
    package = tmp_path / "wheel" / "programs"
    (package / "bin").mkdir(parents=True)
    (package / "bin" / "run").write_text("#!/bin/sh")
    (package / "bin" / "run").chmod(0o700)
    (package / "data").write_text("x")
    (package / "data").chmod(0o600)
    (tmp_path / "wheel" / "programs.libs").mkdir()
    target = tmp_path / "copy"
    for _ in range(2):
        assert account.reachable_copy(package, target) == target / "programs"
    modes = {str(path.relative_to(target)): stat.S_IMODE(path.stat().st_mode) for path in (target, *target.rglob("*"))}
    assert modes == {
        ".": 0o755,
        "programs": 0o755,
        "programs/bin": 0o755,
        "programs/bin/run": 0o755,
        "programs/data": 0o644,
        "programs.libs": 0o755,
    }
    assert {entry.name for entry in tmp_path.iterdir()} == {"copy", "wheel"}
