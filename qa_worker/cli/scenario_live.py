"""Suites while they run: bars on a terminal, a line for each run that ended anywhere else. All of it on stderr."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from qa_worker import bootstrap
from qa_worker.application.running import ProgressEvent, RunProgress, SuiteProgress
from qa_worker.cli.console import errors
from qa_worker.cli.render import plain
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.run import FINAL, RunState

_MOST_BARS = 10
_AWAY_S = 1.0
COLOURS = {
    RunState.PENDING: "dim",
    RunState.RUNNING: "cyan",
    RunState.PASSED: "green",
    RunState.FAILED: "red",
    RunState.ERROR: "magenta",
    RunState.INVALID: "yellow",
    RunState.CANCELLED: "dim",
}


@dataclass
class _Seen:
    """What is known of one suite run, and its bars."""

    name: str
    bar: TaskID
    runs: dict[uuid.UUID, RunProgress] = field(default_factory=dict)
    told: set[uuid.UUID] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    bars: dict[uuid.UUID, TaskID] = field(default_factory=dict)


class Board:
    """Shows where the runs of one or more suites stand. Threads may share it.

    `lines`: tell of each run that ended, and not only of those that did not pass.
    """

    def __init__(self, console: Console = errors, *, lines: bool = True) -> None:
        self._console = console
        self._lines = lines and not console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._suites: dict[uuid.UUID, _Seen] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, suite_run_id: uuid.UUID, name: str) -> None:
        """Give a suite run its bar before anything is known of it, so that those of several stand together."""
        with self._lock:
            self._suites[suite_run_id] = _Seen(name, self._progress.add_task(plain(name), total=None, note=""))

    def take(self, item: SuiteProgress | ProgressEvent) -> None:
        """Show a snapshot, or what changed since the last one."""
        with self._lock:
            seen = self._snapshot(item) if isinstance(item, SuiteProgress) else self._event(item)
            if seen is not None:
                self._draw(seen)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(text, style="dim")

    def _snapshot(self, item: SuiteProgress) -> _Seen:
        if item.id not in self._suites:
            self._suites[item.id] = _Seen(item.name, self._progress.add_task(plain(item.name), total=None, note=""))
        seen = self._suites[item.id]
        for run in item.runs:
            known = seen.runs.get(run.id)
            # An event may have told of turns that this reading of the rows is too old for.
            ahead = known is not None and known.state is run.state and known.turns > run.turns
            seen.runs[run.id] = known if known is not None and ahead else run
        return seen

    def _event(self, item: ProgressEvent) -> _Seen | None:
        seen = self._suites.get(item.suite_run_id)
        known = None if seen is None else seen.runs.get(item.run_id)
        # The rows say why a run ended; and what is over stays over.
        if seen is None or known is None or item.state in FINAL or known.state in FINAL:
            return None
        # What it waits for, the rows say; one that goes on waits no more.
        waits = known.wait_reason if item.state is RunState.PENDING else ""
        seen.runs[item.run_id] = replace(
            known, state=item.state, turns=max(known.turns, item.turns), wait_reason=waits, waits_until=None
        )
        return seen

    def _draw(self, seen: _Seen) -> None:
        for run in seen.runs.values():
            if run.state in FINAL and run.id not in seen.told:
                seen.told.add(run.id)
                self._ended(run, seen)
            elif run.state is RunState.RUNNING:
                self._running(run, seen)
            elif run.wait_reason and run.wait_reason not in seen.reasons:
                seen.reasons.add(run.wait_reason)
                self._waits(run, seen)
        over = sum(run.state in FINAL for run in seen.runs.values())
        note = counted(Counter(run.state for run in seen.runs.values()))
        waiting = Counter(run.wait_reason for run in seen.runs.values() if run.wait_reason)
        if waiting:
            note += "; waiting: " + ", ".join(f"{number} {plain(why)}" for why, number in waiting.most_common(2))
        self._progress.update(seen.bar, completed=over, total=len(seen.runs), note=note)

    def _running(self, run: RunProgress, seen: _Seen) -> None:
        bar = seen.bars.get(run.id)
        if bar is None:
            if sum(len(one.bars) for one in self._suites.values()) >= _MOST_BARS:
                return
            # The caller has the floor at most `max_turns` times, each time with the agent's answer.
            bar = self._progress.add_task(f"  {plain(name_of(run))}", total=2 * run.max_turns, note="turns at most")
            seen.bars[run.id] = bar
        self._progress.update(bar, completed=min(run.turns, 2 * run.max_turns))

    def _waits(self, run: RunProgress, seen: _Seen) -> None:
        """One line for each reason: with an agent that is down all runs wait for the same."""
        suite = f"{plain(seen.name)}: " if len(self._suites) > 1 else ""
        why = f"{run.wait_reason}: {run.message}" if run.message else run.wait_reason
        until = f" Next try {run.waits_until:%H:%M:%S} UTC." if run.waits_until else ""
        self._progress.console.print(
            f"[yellow]waiting  [/] {suite}{plain(name_of(run))} after {run.turns} turns: {plain(why)}{until}",
            highlight=False,
            soft_wrap=True,
        )

    def _ended(self, run: RunProgress, seen: _Seen) -> None:
        bar = seen.bars.pop(run.id, None)
        if bar is not None:
            self._progress.remove_task(bar)
        if not self._lines and run.state is RunState.PASSED:
            return
        why = f": {plain(run.message)}" if run.message else ""
        state = f"[{COLOURS[run.state]}]{run.state.value:<9}[/]"
        suite = f"{plain(seen.name)}: " if len(self._suites) > 1 else ""
        self._progress.console.print(
            f"{state} {suite}{plain(name_of(run))} after {run.turns} turns{why}", highlight=False, soft_wrap=True
        )


def name_of(run: RunProgress) -> str:
    """`booking-plain #2`; a repeat that the caller spoilt is played again as another attempt."""
    again = f" (attempt {run.attempt_no})" if run.attempt_no > 1 else ""
    return f"{run.scenario} #{run.repeat}{again}"


def counted(states: Counter[RunState]) -> str:
    """`12 passed, 1 failed`, in the order of the states."""
    return ", ".join(f"{states[state]} {state.value}" for state in RunState if states[state]) or "none"


def follow(
    suites: bootstrap.Suites,
    suite_run_id: uuid.UUID,
    board: Board,
    *,
    workspace: str,
    timeout_s: float | None = None,
) -> bool:
    """Show a suite run until it is over: True; or until the time is up: False. A database that is away is waited for.

    Raises:
        LookupError: the workspace has no such suite run.

    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            for item in suites.watch(suite_run_id, workspace=workspace):
                board.take(item)
                if deadline is not None and time.monotonic() > deadline:
                    return False
        except StoreUnavailable:
            board.say("The database is away; waiting for it.")
            time.sleep(_AWAY_S)
            if deadline is not None and time.monotonic() > deadline:
                return False
        else:
            return True
