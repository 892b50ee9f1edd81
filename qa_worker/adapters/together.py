"""Many threads' questions answered together by one thread: a transaction costs nearly the same for one row and for fifty."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")
_AT_MOST = 64


def gather(waiting: queue.SimpleQueue[_Item | None], group: list[_Item], *, until: float) -> bool:
    """Take what waits, and what comes until then (on the monotonic clock); True when the end (None) was among it."""
    while len(group) < _AT_MOST:
        try:
            item = waiting.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return False
        if item is None:
            return True
        group.append(item)
    return False


class Together(Generic[_Asked, _Answer]):
    """Gathers what is asked while the last group is answered, and for up to `window_s` after it.

    A question that comes alone is answered at once: on an idle system nothing waits for company.
    """

    def __init__(
        self, answer: Callable[[Sequence[_Asked]], Sequence[_Answer]], *, window_s: float, thread_name: str
    ) -> None:
        """`answer` gives as many answers, in the order of the questions. Where it raises, each is asked again alone."""
        self._answer = answer
        self._window_s = window_s
        self._name = thread_name
        self._waiting: queue.SimpleQueue[tuple[_Asked, Future[_Answer]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, asked: _Asked) -> _Answer:
        """The answer, or what `answer` raised over this question."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
        answered: Future[_Answer] = Future()
        self._waiting.put((asked, answered))
        return answered.result()

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout=30)

    def _serve(self) -> None:
        idle_since = -self._window_s
        while (first := self._waiting.get()) is not None:
            group = [first]
            last = gather(self._waiting, group, until=idle_since + self._window_s)
            self._settle(group)
            idle_since = time.monotonic()
            if last:
                return

    def _settle(self, group: Sequence[tuple[_Asked, Future[_Answer]]]) -> None:
        try:
            answers = self._answer([asked for asked, _ in group])
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
            if len(group) == 1:
                group[0][1].set_exception(error)
                return
            for one in group:
                self._settle([one])
            return
        for (_, answered), answer in zip(group, answers, strict=True):
            answered.set_result(answer)
