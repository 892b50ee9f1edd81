"""`qa-worker rubric`: check a rubric file, make it the one that holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qa_worker import bootstrap
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing

app = typer.Typer(help="Rubrics: what calls are graded by.", no_args_is_help=True)


@app.command()
def check(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]) -> None:
    """Read a rubric file and tell what it says; exit 2 with field and fix where it is wrong."""
    rubric = bootstrap.read_rubric(file).rubric
    total = sum(criterion.weight for criterion in rubric.criteria)
    results.print(f"[bold]{rubric.name}[/bold]: passes from {rubric.pass_threshold} of 100")
    for criterion in rubric.criteria:
        hard = ", a critical finding fails the call" if criterion.critical_fails else ""
        least = "" if criterion.minimum is None else f", at least {criterion.minimum}"
        results.print(f"  {criterion.id}: {criterion.weight / total:.0%} of the score{least}{hard}")


@app.command("set-default")
def set_default(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    workspace: Annotated[str, typer.Option(help="Whose calls.")] = "default",
    agent: Annotated[str | None, typer.Option(help="Only the calls of this agent (its id as calls name it).")] = None,
) -> None:
    """Grade the calls of a workspace, or of one agent, by this rubric from now on. Earlier verdicts stay."""
    rubric = bootstrap.read_rubric(file)
    with existing() as client:
        try:
            client.set_default_rubric(rubric, workspace=workspace, agent=agent)
        except LookupError:
            errors.print(f"workspace {workspace!r} has had no call of an agent {agent!r} yet")
            raise typer.Exit(2) from None
    whose = f"agent {agent!r}" if agent else f"workspace {workspace!r}"
    results.print(f"{whose} is graded by {rubric.rubric.name!r} from now on")
