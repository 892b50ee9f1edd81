"""One event loop for each worker process, in a thread of its own, behind a port that blocks."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from typing import Any, TypeVar

from qa_worker.application.conversing import AsyncChatModel, ChatAnswer, ChatRequest
from qa_worker.application.judging import AsyncJudge, JudgeAnswer, JudgeRequest

_T = TypeVar("_T")
_TOGETHER_S = 0.02
_Finished = queue.SimpleQueue[tuple[int, JudgeAnswer | Exception] | None]
"""Answers as they come, each with the number of its request; None: no more will come."""


class EventLoop:
    """Starts with its first use, so that a process that forks before has none; ends with `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine on the loop. The future always ends: it is cancelled where the loop closes first."""
        with self._lock:
            return asyncio.run_coroutine_threadsafe(work, self._running())

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and wait for its result. What it awaits has deadlines of its own."""
        return self.submit(work).result()

    def close(self) -> None:
        """End the thread; what still runs on the loop is cancelled."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="event-loop", daemon=True)
            self._thread.start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        # What was handed over in the last moment becomes a task first, so that it can be cancelled like the others.
        loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


class JudgeOnLoop:
    """Implements the port `Judge` with an asynchronous one."""

    def __init__(self, judge: AsyncJudge, loop: EventLoop) -> None:
        self._judge = judge
        self._loop = loop

    def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """See the port."""
        return self._loop.run(self._judge.grade(request))

    def grade_each(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[int, JudgeAnswer | Exception]]:
        """See the port."""
        finished: _Finished = queue.SimpleQueue()
        everyone = self._loop.submit(self._grade_all(requests, finished))
        everyone.add_done_callback(lambda _: finished.put(None))
        missing = set(range(len(requests)))
        while missing and (found := finished.get()) is not None:
            missing.discard(found[0])
            yield found
            # A thread that wakes for each answer takes turns with the loop, which costs more than the answer: it sleeps
            # a little, and finds several.
            if finished.empty():
                futures.wait((everyone,), timeout=_TOGETHER_S)
        for number in missing:
            yield number, RuntimeError("the event loop was closed")

    async def _grade_all(self, requests: Sequence[JudgeRequest], finished: _Finished) -> None:
        async def one(number: int, request: JudgeRequest) -> None:
            try:
                finished.put((number, await self._judge.grade(request)))
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits for this answer
                finished.put((number, error))

        await asyncio.gather(*(one(number, request) for number, request in enumerate(requests)))


class ChatOnLoop:
    """Implements the port `ChatModel` with an asynchronous one."""

    def __init__(self, model: AsyncChatModel, loop: EventLoop) -> None:
        self._model = model
        self._loop = loop

    def say(self, request: ChatRequest) -> ChatAnswer:
        """See the port."""
        return self._loop.run(self._model.say(request))
