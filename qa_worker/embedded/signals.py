"""Signals as something to wait for: a stop was asked for, a child ended."""

from __future__ import annotations

import select
import signal
import socket
from types import FrameType

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """From its creation on, SIGTERM and SIGINT only count in `stops`. For the main thread of a process of ours."""

    def __init__(self) -> None:
        self.stops = 0
        # A signal that comes just before the wait would be slept through; its byte in this pipe is not.
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0)
        self._waker.settimeout(0)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in _STOP:
            signal.signal(number, self._count)
        signal.signal(signal.SIGCHLD, self._count)

    def _count(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP:
            self.stops += 1

    def wait(self, seconds: float) -> None:
        """Sleeps until a signal comes, at most `seconds`."""
        if select.select([self._woken], [], [], seconds)[0]:
            self._woken.recv(4096)
