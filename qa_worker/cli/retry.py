"""`qa-worker retry`: what was given up on begins anew, with a fresh budget of attempts."""

from __future__ import annotations

from typing import Annotated

import typer

from qa_worker.cli import render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing
from qa_worker.domain.call import CallId


def retry(
    calls: Annotated[list[str] | None, typer.Argument(help="Ids of calls, yours or ours, or external ids.")] = None,
    workspace: Annotated[str, typer.Option(help="The workspace that the calls belong to.")] = "default",
    dead: Annotated[bool, typer.Option("--dead", help="Everything that was given up on, in every workspace.")] = False,
) -> None:
    """Grade again what could not be graded: calls that are `not evaluated`; and calls that are named here whose answers
    could not be read. Their earlier attempts stay on record.
    """
    if bool(calls) == dead:
        errors.print("Name calls, or use --dead for everything that was given up on.")
        raise typer.Exit(2)
    with existing() as client:
        ids = []
        for name in calls or ():
            found = client.queries.calls(workspace, name)
            if not found:
                errors.print(f"No call {render.plain(name)!r} is known in workspace {render.plain(workspace)!r}.")
                raise typer.Exit(2)
            ids += [CallId(call.id) for call in found]
        revived = client.retry(ids)
    results.print(f"{revived} evaluations begin anew; the dispatcher sends them within a second.")
