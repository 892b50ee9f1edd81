"""An agent that is a Python function in the worker's own process."""

from __future__ import annotations

import importlib
import inspect
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from qa_worker.adapters.agents.exchange import reply_of, request
from qa_worker.adapters.agents.settings import text
from qa_worker.adapters.agents.web import timed_out
from qa_worker.application.playing import AgentReply, PlayContext
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.transcript import Turn

_MOST_LEFT_BEHIND = 64
_REFERENCE = re.compile(r"(?P<module>\w+(?:\.\w+)*):(?P<name>\w+(?:\.\w+)*)", re.ASCII)
_FORM = "my_agents.booking:reply"

# A thread can't be ended from outside: those whose function never returns are counted, over all runs of the process.
_threads = threading.BoundedSemaphore(_MOST_LEFT_BEHIND)


class PythonAgent:
    """Implements the port `AgentPlayer` with a function that takes the request as a dict and returns text or a dict."""

    def __init__(self, settings: Mapping[str, Any], *, modules: Collection[str]) -> None:
        """`settings` has `call`, "module:function"; the module, or a package that holds it, must be among `modules`.

        Raises InvalidInput where it isn't, or can't be loaded, or is no plain function.
        """
        self._function = _loaded(text(settings, "call", example=_FORM), modules)

    def reply(self, context: PlayContext, history: Sequence[Turn], told: str) -> AgentReply | Failure:
        """See the port. What the function raises is a `Failure`, for it is not our fault and must not end the worker."""
        if not _threads.acquire(blocking=False):
            message = f"{_MOST_LEFT_BEHIND} calls of Python agents have not returned. Give them timeouts of their own."
            return Failure(FailureKind.TRANSIENT, "agent_stuck", message)
        answer: queue.SimpleQueue[AgentReply | Failure] = queue.SimpleQueue()
        asked = request(context, history, told)
        began = time.monotonic()

        def ask() -> None:
            try:
                given = self._function(asked)
                answer.put(reply_of(given, took_s=time.monotonic() - began))
            except Exception as error:  # noqa: BLE001 - the agent's own code: whatever it raises is its answer
                answer.put(_raised(error))
            finally:
                _threads.release()

        threading.Thread(target=ask, name="python-agent", daemon=True).start()
        try:
            return answer.get(timeout=context.limits.reply_s)
        except queue.Empty:
            return timed_out(context.limits.reply_s)


def _loaded(reference: str, modules: Collection[str]) -> Callable[[dict[str, Any]], object]:
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise _wrong("is no module:function", f"Write it as {_FORM}")
    module = parts["module"]
    if not any(module == known or module.startswith(f"{known}.") for known in modules):
        raise _wrong("names a module that may not be run", f"Ops can allow it: QA_AGENT_PYTHON_MODULES={module}")
    try:
        found: Any = importlib.import_module(module)
        for name in parts["name"].split("."):
            found = getattr(found, name)
    except AttributeError:
        raise _wrong("names a function that its module doesn't have", "Correct the name after the colon") from None
    except Exception as error:  # noqa: BLE001 - a module's own code runs when it is imported, and may raise anything
        fix = "Install it where the worker runs, or add its folder to PYTHONPATH"
        raise _wrong(f"can't be imported ({type(error).__name__})", fix) from None
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise _wrong("is no plain function", "Name a function that returns its reply; it may run a loop of its own")
    function: Callable[[dict[str, Any]], object] = found
    return function


def _raised(error: Exception) -> Failure:
    """The fault by its class and place: its text may hold what was said in the call."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return Failure(FailureKind.REJECTED, "agent_raised", f"The agent raised {type(error).__name__}{where}.")


def _wrong(problem: str, fix: str) -> InvalidInput:
    return InvalidInput("target.call", problem, fix)
