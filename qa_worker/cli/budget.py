"""`qa-worker budget`: what may be spent in a day, and what was."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from qa_worker.cli import render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing

app = typer.Typer(help="Daily budgets (UTC), in dollars.", no_args_is_help=True)
_MICRO = 1_000_000
_DEFAULT = "default"


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


_Workspace = Annotated[str | None, typer.Option(help="Whose budget; 'default' unless one is named.")]
_Overall = Annotated[bool, typer.Option("--overall", help="The budget for all workspaces together.")]


@app.command("set")
def set_cap(
    dollars: Annotated[float, typer.Argument(min=0, help="Dollars a day; 0 stops grading by Claude.")],
    workspace: _Workspace = None,
    overall: _Overall = False,
) -> None:
    """Cap what a workspace, or all together, may spend in a day. Work that waited for the old cap is due at once."""
    _set(round(dollars * _MICRO), workspace, overall=overall)
    who = "all workspaces together" if overall else f"workspace {workspace or _DEFAULT!r}"
    results.print(f"{who} may spend ${dollars:.2f} a day")


@app.command("clear")
def clear(workspace: _Workspace = None, overall: _Overall = False) -> None:
    """Take away a cap that was set by command; the one of the settings holds then."""
    _set(None, workspace, overall=overall)
    results.print(
        "the budget for all workspaces together is that of the settings again"
        if overall
        else f"workspace {workspace or _DEFAULT!r} has no budget of its own any more"
    )


def _set(micro_usd: int | None, workspace: str | None, *, overall: bool) -> None:
    if overall and workspace is not None:
        errors.print("Name a workspace, or use --overall for all of them together.")
        raise typer.Exit(2)
    with existing() as client:
        if overall:
            client.set_overall_budget(micro_usd)
        else:
            client.set_budget(workspace or _DEFAULT, micro_usd)
