"""How one run looks on a terminal: where it stands and why, and its conversation with the markers as they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qa_worker.application.running import RunView
from qa_worker.cli.render import dollars, plain
from qa_worker.cli.scenario_live import COLOURS
from qa_worker.domain.playback import PlayedTurn
from qa_worker.domain.suite import RunResult
from qa_worker.domain.transcript import Role


def conversation(view: RunView) -> RenderableType:
    """The run in a few lines, then turn by turn. Numbers are those that findings speak of."""
    return Group(*_about(view), _turns(view), *_found(view.run))


def _about(view: RunView) -> Iterator[Text | str]:
    run = view.run
    again = f" (attempt {run.attempt})" if run.attempt > 1 else ""
    version = f" {view.agent_version}" if view.agent_version else ""
    state = Text(run.state.value, style=COLOURS[run.state])
    ended = f", {run.completion.value}" if run.completion else ""
    score = "" if run.overall is None else f", score {run.overall} of 100"
    yield Text.assemble(f"{run.scenario} #{run.repeat}{again}: ", state, f"{ended} after {run.turns} turns{score}")
    yield plain(f"Run {run.run_id} of suite run {view.suite_run_id} ({view.suite}: agent {view.agent}{version})")
    until = f" Next try {run.waits_until:%H:%M:%S} UTC." if run.waits_until else ""
    if run.message or until:
        yield plain(f"{run.why}{until}")
    played = f"The caller was played by {run.caller}" if run.caller else "Nothing was played"
    judged = f", judged by {run.judge}" if run.judge else ""
    cost = "an unknown price" if run.cost_micro_usd is None else dollars(run.cost_micro_usd)
    yield plain(f"{played}{judged}; cost {cost}.")


def _turns(view: RunView) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    places = count()
    for row in view.turns:
        turn = row.turn
        at = "" if turn.start_s is None else f"{turn.start_s:.1f}s"
        table.add_row(str(next(places)) if row.said else "-", at, turn.role.value, plain("\n".join(_said(row))))
    return table


def _said(row: PlayedTurn) -> Iterator[str]:
    turn = row.turn
    if turn.role is Role.TOOL:
        yield f"{'error: ' if turn.is_error else ''}{turn.text}"
        return
    if turn.text or not (turn.tool_calls or row.line):
        yield turn.text or "(says nothing)"
    # A line of several moves stands with the first of them.
    if row.line is not None and row.move == 0 and row.line.text != turn.text:
        yield f"as written: {row.line.text}"
    if row.unheard:
        yield f"never heard: {row.unheard}"
    for call in turn.tool_calls:
        arguments = call.malformed if call.malformed is not None else json.dumps(dict(call.arguments))
        yield f"-> {call.name}({arguments})"
    if row.ends:
        yield "(hangs up)"
    if row.transferred:
        yield "(hands the caller over)"


def _found(run: RunResult) -> Iterator[str]:
    for finding in run.findings:
        where = "" if finding.turn is None else f" turn {finding.turn}"
        yield plain(f"[{finding.severity.value}] {finding.criterion}{where}: {finding.explanation}")
