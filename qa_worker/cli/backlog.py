"""`qa-worker backlog`: choose calls that have no verdict under their rubric version, see what it costs, submit, watch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from qa_worker.application.backlog_queries import BacklogStatus, BatchView
from qa_worker.application.batch_backlog import Line, Preview
from qa_worker.cli import render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing
from qa_worker.cli.times import to_time
from qa_worker.domain.backlog import Choice, Selection, Via
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.work import Lane

app = typer.Typer(
    help="Grade later, and grade again: through Message Batches at half price, or through the queue.",
    no_args_is_help=True,
)
_MICRO = 1_000_000
_BAD_INPUT = 2
# Longer than a beat and what it may wait for: what still waits then lacks something.
_LONG_S = 600.0

Workspace = Annotated[str | None, typer.Option(help="Only the calls of this workspace.")]
Agent = Annotated[str | None, typer.Option(help="Only the calls of this agent (its id as calls name it).")]
Since = Annotated[
    str | None, typer.Option(help="Only calls received at or after this time: ISO 8601, UTC unless it says.")
]
Until = Annotated[str | None, typer.Option(help="Only calls received before this time.")]
Missing = Annotated[bool, typer.Option("--missing", help="Only calls without any verdict.")]
OldRubric = Annotated[
    bool, typer.Option("--old-rubric", help="Only calls with a verdict under an older rubric version.")
]
All = Annotated[bool, typer.Option("--all", help="Both; this is what holds unless you choose.")]
Way = Annotated[Via, typer.Option(help="`auto` is batch for Claude, and queue for the rules judge.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


@app.command("preview")
def preview(
    *,
    workspace: Workspace = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    missing: Missing = False,
    old_rubric: OldRubric = False,
    every: All = False,
    via: Way = Via.AUTO,
    as_json: AsJson = False,
) -> None:
    """Show how many calls would be graded, what that takes and costs, and what is left alone. Nothing is made."""
    selection = select(workspace, agent, since, until, _choice(missing=missing, old_rubric=old_rubric, every=every))
    with existing() as client:
        found = client.backlog.preview(selection, via)
    if as_json:
        print(json.dumps(_preview_as_dict(found)))  # noqa: T201 - what --json promises
    else:
        _show_preview(found)


@app.command("submit")
def submit(
    *,
    workspace: Workspace = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    missing: Missing = False,
    old_rubric: OldRubric = False,
    every: All = False,
    via: Way = Via.AUTO,
    as_json: AsJson = False,
) -> None:
    """Submit these calls; `preview` with the same options shows first what that costs. Doing it twice changes nothing."""
    selection = select(workspace, agent, since, until, _choice(missing=missing, old_rubric=old_rubric, every=every))
    with existing() as client:
        done = client.backlog.submit(selection, via)
    by_batch, by_queue = done.by_lane[Lane.BATCH], done.by_lane[Lane.BACKLOG]
    if as_json:
        print(json.dumps({"batch": by_batch, "queue": by_queue, "skipped": dict(done.skipped)}))  # noqa: T201 - as above
        return
    results.print(
        f"{by_batch} calls wait for a batch, {by_queue} for the queue. `qa-worker backlog status` tells how it goes."
    )
    _show_skipped(done.skipped)


@app.command("status")
def status(as_json: AsJson = False) -> None:
    """Open batches, what waits by workspace, and the batches that were over last."""
    with existing() as client:
        found = client.backlog.status()
    if as_json:
        print(json.dumps(_status_as_dict(found), default=str))  # noqa: T201 - what --json promises
    else:
        _show_status(found)


@app.command("cancel")
def cancel(
    batch: Annotated[str, typer.Argument(help="Its id, the beginning of its id, or the provider's id.")],
) -> None:
    """Don't wait for a batch any longer: what isn't graded yet goes through the queue, at the full price.

    What the provider has begun it may finish. To stop spending instead, set a budget: `qa-worker budget set 0`.
    """
    with existing() as client:
        found = client.backlog.cancel(batch)
    if len(found) != 1:
        fits = f"{len(found)} open batches begin with" if found else "no open batch is called"
        errors.print(f"{fits} {render.plain(batch)!r}. `qa-worker backlog status` lists them.", highlight=False)
        raise typer.Exit(_BAD_INPUT)
    results.print(f"batch {found[0]} is cancelled with the next beat of the batch job")


def select(
    workspace: str | None, agent: str | None, since: str | None, until: str | None, choice: Choice = Choice.ALL
) -> Selection:
    """The selection that options describe. Raises InvalidInput."""
    return Selection(workspace, agent, to_time("--since", since), to_time("--until", until), choice)


def _choice(*, missing: bool, old_rubric: bool, every: bool) -> Choice:
    chosen = [Choice.MISSING] * missing + [Choice.OLD_RUBRIC] * old_rubric + [Choice.ALL] * every
    if len(chosen) > 1:
        raise InvalidInput(
            "--missing, --old-rubric, --all", "more than one was given", "Give one of them, or none for --all."
        )
    return chosen[0] if chosen else Choice.ALL


def _dollars(micro_usd: int | None) -> float | None:
    return None if micro_usd is None else micro_usd / _MICRO


def _preview_as_dict(found: Preview) -> dict[str, Any]:
    return {
        "calls": found.calls,
        "batches": found.batches,
        "by_judge": [_line_as_dict(line) for line in found.lines],
        "skipped": dict(found.skipped),
    }


def _line_as_dict(line: Line) -> dict[str, Any]:
    return {
        "rubric": line.rubric,
        "judge": line.judge.value,
        "model": line.model or None,
        "via": "batch" if line.lane is Lane.BATCH else "queue",
        "calls": line.calls,
        "never_graded": line.never_graded,
        "graded_before": line.graded_before,
        "input_tokens": line.input_tokens,
        "output_tokens": line.output_tokens,
        "batch_cost_usd": _dollars(line.batch_cost_micro_usd),
        "queue_cost_usd": _dollars(line.queue_cost_micro_usd),
    }


def _show_preview(found: Preview) -> None:
    table = Table(
        "Rubric", "Judge", "Via", "Calls", "Never graded", "Input tokens", "Output tokens", "By batch", "By queue"
    )
    for line in found.lines:
        table.add_row(
            render.plain(line.rubric),
            f"{line.judge.value} {line.model}".strip(),
            "batch" if line.lane is Lane.BATCH else "queue",
            *(f"{count:,}" for count in (line.calls, line.never_graded, line.input_tokens, line.output_tokens)),
            render.dollars(line.batch_cost_micro_usd),
            render.dollars(line.queue_cost_micro_usd),
        )
    if found.lines:
        results.print(table)
    results.print(f"{found.calls:,} calls would be graded, in {found.batches} batches. Nothing was made yet.")
    if found.lines:
        results.print(
            "Estimated from stored sizes; what is read from the provider's cache makes it cheaper.", style="dim"
        )
    _show_skipped(found.skipped)


def _show_skipped(skipped: Any) -> None:
    for why, count in sorted(skipped.items()):
        results.print(f"  left alone: {count:,} {why}", highlight=False)


def _status_as_dict(found: BacklogStatus) -> dict[str, Any]:
    return {
        "open": [_batch_as_dict(batch) for batch in found.open],
        "recent": [_batch_as_dict(batch) for batch in found.recent],
        "waiting": [asdict(lane) for lane in found.waiting],
    }


def _batch_as_dict(batch: BatchView) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(batch).items() if not name.endswith("_micro_usd")}
    return {
        **shown,
        "estimate_usd": _dollars(batch.estimate_micro_usd),
        "cost_usd": _dollars(batch.cost_micro_usd),
    }


def _show_status(found: BacklogStatus) -> None:
    if found.open:
        results.print("[bold]Open batches[/bold]")
        results.print(_open_table(found.open))
    for lane in found.waiting:
        oldest = "none due yet" if lane.oldest_due_s is None else f"the oldest due for {_age(lane.oldest_due_s)}"
        what = "a batch" if lane.lane is Lane.BATCH else "the queue"
        results.print(f"{render.plain(lane.workspace)}: {lane.waiting:,} wait for {what}, {oldest}", highlight=False)
    late = any(lane.lane is Lane.BATCH and (lane.oldest_due_s or 0) > _LONG_S for lane in found.waiting)
    if late and not found.open:
        results.print(
            "No batch is made of them: does the worker of `maintenance` run, with ANTHROPIC_API_KEY, and is a budget left"
            " (`qa-worker budget show`)?",
            style="yellow",
        )
    if found.recent:
        results.print("[bold]Batches that are over[/bold]")
        results.print(_recent_table(found.recent))
    if not (found.open or found.waiting or found.recent):
        results.print("Nothing waits, and there was no batch yet.")


def _open_table(batches: tuple[BatchView, ...]) -> Table:
    table = Table("Batch", "State", "Model", "Calls", "Age", "Ends by", "Next look", "Estimate", "Last error")
    for batch in batches:
        state = batch.state.value.replace("_", " ") + (" (being cancelled)" if batch.cancel_asked_at else "")
        table.add_row(
            str(batch.id)[:8],
            state,
            batch.model,
            f"{batch.request_count:,}",
            _age(batch.age_s),
            "-" if batch.expires_at is None else f"{batch.expires_at:%d %b %H:%M} UTC",
            f"{batch.next_look_at:%H:%M:%S}",
            render.dollars(batch.estimate_micro_usd),
            render.plain(_error(batch)),
        )
    return table


def _recent_table(batches: tuple[BatchView, ...]) -> Table:
    table = Table(
        "Batch", "State", "Model", "Succeeded", "Errored", "Canceled", "Expired", "Cost", "Over since", "Error"
    )
    for batch in batches:
        over = batch.collected_at
        table.add_row(
            str(batch.id)[:8],
            batch.state.value,
            batch.model,
            *(
                f"{count:,} of {batch.request_count:,}" if n == 0 else f"{count:,}"
                for n, count in enumerate(_counts(batch))
            ),
            render.dollars(batch.cost_micro_usd),
            "-" if over is None else f"{over:%d %b %H:%M} UTC",
            render.plain(_error(batch)),
        )
    return table


def _counts(batch: BatchView) -> tuple[int, int, int, int]:
    counts = batch.counts
    return counts.succeeded, counts.errored, counts.canceled, counts.expired


def _error(batch: BatchView) -> str:
    return f"{batch.error_code}: {batch.error_message}" if batch.error_code else ""


def _age(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if hours < 1 else f"{hours:.1f} h"
