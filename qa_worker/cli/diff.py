"""`qa-worker diff`: which verdicts changed with the rubric version."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from qa_worker.cli import render
from qa_worker.cli.backlog import Agent, AsJson, Since, Until, Workspace, select
from qa_worker.cli.console import results
from qa_worker.cli.places import existing
from qa_worker.domain.changes import Changes, Graded


def diff(
    workspace: Workspace = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    rubric: Annotated[
        str | None, typer.Option(help="Only calls whose current verdict is under a rubric of this name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="How many changed calls are listed.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Compare the current verdicts of calls with the latest ones before them, under another rubric version."""
    with existing() as client:
        changes = client.backlog.changes(select(workspace, agent, since, until), rubric=rubric, keep=limit)
    if as_json:
        print(json.dumps(_as_dict(changes), ensure_ascii=False))  # noqa: T201 - what --json promises
    else:
        _show(changes)


def _as_dict(changes: Changes) -> dict[str, Any]:
    return {
        "graded": changes.graded,
        "compared": changes.compared,
        "changed": changes.changed_count,
        "matrix": {before: dict(row) for before, row in changes.rows().items()},
        "both_measured": changes.both_measured,
        "mean_change": changes.mean_change,
        "calls": [asdict(pair) for pair in changes.changed],
    }


def _show(changes: Changes) -> None:
    if not changes.compared:
        results.print(f"Nothing to compare: of {changes.graded:,} graded calls none has an earlier verdict.")
        return
    rows = changes.rows()
    table = Table("Before \\ now", *(verdict.value.replace("_", " ") for verdict in rows), "all")
    for before, row in rows.items():
        table.add_row(before.value.replace("_", " "), *(f"{n:,}" for n in row.values()), f"{sum(row.values()):,}")
    results.print(table)
    results.print(
        f"{changes.changed_count:,} of {changes.compared:,} verdicts changed ({changes.changed_count / changes.compared:.1%});"
        f" {changes.graded - changes.compared:,} of {changes.graded:,} graded calls have no earlier verdict."
    )
    if changes.mean_change is not None:
        results.print(
            f"Score: {changes.mean_change:+.1f} points on average, over {changes.both_measured:,} calls measured both times."
        )
    if changes.changed:
        results.print(_changed(changes))
    if len(changes.changed) < changes.changed_count:
        results.print(f"The first {len(changes.changed):,} are listed; --limit shows more.")


def _changed(changes: Changes) -> Table:
    table = Table("Call", "Workspace", "Agent", "Before", "Now")
    for pair in changes.changed:
        if pair.before is not None:
            names = (render.plain(text) for text in (pair.call, pair.workspace, pair.agent))
            table.add_row(*names, _graded(pair.before), _graded(pair.after))
    return table


def _graded(one: Graded) -> str:
    score = "-" if one.overall is None else str(one.overall)
    return f"{one.verdict.value.replace('_', ' ')} {score} ({render.plain(one.rubric)} {one.version})"
