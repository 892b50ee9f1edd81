"""The key that a local stack makes for itself."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qa_worker.adapters.secrets import FernetVault
from qa_worker.embedded.files import make_home
from qa_worker.embedded.secret_key import known_key, made_key
from qa_worker.embedded.stack import Command, StackSpec, start
from tests.embedded.test_stack import remove, silent

PRINTS_ITS_KEY = (sys.executable, "-c", "import os; print(os.environ.get('QA_SECRET_KEYS', ''), flush=True)")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home that is emptied of what ran in it."""
    yield tmp_path / "home"
    remove(tmp_path / "home")


def test_a_key_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    make_home(tmp_path / "home")
    assert known_key(tmp_path / "home") is None

    key = made_key(tmp_path / "home")

    assert made_key(tmp_path / "home") == known_key(tmp_path / "home") == key
    assert stat.S_IMODE((tmp_path / "home" / "secret.key").stat().st_mode) == 0o600
    vault = FernetVault([key])
    assert vault.open(vault.seal("a secret")) == "a secret"


@pytest.mark.services
def test_the_processes_of_a_stack_get_its_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QA_SECRET_KEYS", raising=False)
    prints = Command("prints", PRINTS_ITS_KEY)

    stack = start(
        StackSpec(home, broker_url="redis://127.0.0.1:1/0", setup=(prints,)), detached=False, on_progress=silent
    )

    assert stack.secret_keys is not None
    assert (home / "logs" / "prints.log").read_text().split() == [stack.secret_keys]
    stack.stop(5)


@pytest.mark.services
@pytest.mark.parametrize(("database_url", "given"), [("postgresql://elsewhere/x", ""), (None, "theirs")])
def test_another_database_or_a_key_of_the_environment_needs_none(
    home: Path, monkeypatch: pytest.MonkeyPatch, database_url: str | None, given: str
) -> None:
    monkeypatch.setenv("QA_SECRET_KEYS", given)
    prints = Command("prints", PRINTS_ITS_KEY)
    spec = StackSpec(home, database_url, "redis://127.0.0.1:1/0", setup=(prints,))

    stack = start(spec, detached=False, on_progress=silent)

    assert (home / "logs" / "prints.log").read_text().strip() == given
    assert stack.secret_keys is None
    stack.stop(5)
