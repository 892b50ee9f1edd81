"""A Valkey that a test may kill or freeze."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qa_worker.embedded.valkey import ValkeyServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server of this test alone."""
    started = ValkeyServer(tmp_path, durable=False)
    started.start(lambda _: None)
    yield started
    if started.process is not None:
        started.process.send_signal(signal.SIGCONT)
    started.stop()


def gone(server: ValkeyServer, how: str) -> None:
    """Kill it, or freeze it: it takes connections then, and answers nothing."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
    if how == "killed":
        server.process.wait(10)


def return_of(server: ValkeyServer, how: str) -> None:
    """The same server on the same port again."""
    assert server.process is not None
    if how == "frozen":
        server.process.send_signal(signal.SIGCONT)
        return
    server.process = server.spawn()
    while not server.answers(server.process):
        time.sleep(0.02)
