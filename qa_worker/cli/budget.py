"""`qa-worker budget`: what may be spent in a day, and what was."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from qa_worker.cli import render
from qa_worker.cli.console import results
from qa_worker.cli.places import existing

app = typer.Typer(help="Daily budgets (UTC), in dollars.", no_args_is_help=True)
_MICRO = 1_000_000


@app.command("show")
def show() -> None:
    """What was spent today, overall and by workspace, and the caps."""
    with existing() as client:
        spending = client.spending()
    table = Table("Workspace", "Spent today", "Cap")
    for one in spending:
        name = render.plain(one.workspace) if one.workspace else "[bold]all[/bold]"
        table.add_row(name, render.dollars(one.spent), "none" if one.cap is None else render.dollars(one.cap))
    results.print(table)


@app.command("set")
def set_cap(
    dollars: Annotated[float, typer.Argument(min=0, help="Dollars a day; 0 stops grading by Claude.")],
    workspace: Annotated[str, typer.Option(help="Whose budget.")] = "default",
) -> None:
    """Cap what a workspace may spend in a day. Work that waited for the old cap is due at once."""
    with existing() as client:
        client.set_budget(workspace, round(dollars * _MICRO))
    results.print(f"workspace {workspace!r} may spend ${dollars:.2f} a day")


@app.command("clear")
def clear(workspace: Annotated[str, typer.Option(help="Whose budget.")] = "default") -> None:
    """Take a workspace's own cap away; the one of the settings holds then."""
    with existing() as client:
        client.set_budget(workspace, None)
    results.print(f"workspace {workspace!r} has no budget of its own any more")
