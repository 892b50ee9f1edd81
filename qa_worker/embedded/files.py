"""Private folders and files, bounded logs, and the lock that gives a home to one stack at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qa_worker.embedded.errors import LocalStackError

LOG_LIMIT_BYTES = 10 * 1024 * 1024


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Makes `path` with exactly `mode`, whatever the umask; a folder that is there already keeps its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise LocalStackError(f"{path} is in the way: a folder is needed there") from None
        return
    path.chmod(mode)


def make_home(home: Path) -> None:
    """Makes the folder of a stack. Root's can be passed through, because PostgreSQL, which refuses root, must get in."""
    make_folder(home, 0o711 if os.geteuid() == 0 else 0o700)
    make_folder(home / "logs")


def write_private(path: Path, text: str) -> None:
    """Replaces `path` at once by a file that only its owner reads (0600)."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - the mode must hold from the first moment
        file.write(text)
    draft.replace(path)


def bound_log(path: Path) -> None:
    """Moves the content of a log that has grown beyond 10 MiB to `<name>.1`. Programs may have it open for appending."""
    if not path.exists() or path.stat().st_size <= LOG_LIMIT_BYTES:
        return
    older = path.with_name(f"{path.name}.1")
    # The file itself stays, because its writers do; the few lines that come between copy and cut are lost.
    shutil.copyfile(path, older)
    older.chmod(0o600)
    os.truncate(path, 0)


def open_log(path: Path) -> BinaryIO:
    """Opens a log for appending (0600), bounded first."""
    make_folder(path.parent)
    bound_log(path)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")  # noqa: PTH123 - as above


def tail(path: Path, *, since: int = 0, lines: int = 15) -> str:
    """The last lines of a log, of what was written after byte `since`; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, since if since <= size else 0, size - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Holds the home for this process; child processes do not inherit the lock.

    Raises `LocalStackError` at once when another process holds it.
    """
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalStackError(f"a local stack already runs (or is starting) in {home}") from None
        yield
    finally:
        os.close(handle)
