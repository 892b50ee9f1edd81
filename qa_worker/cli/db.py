"""`qa-worker db`: the schema."""

from __future__ import annotations

import typer

from qa_worker.cli.console import results
from qa_worker.cli.places import existing

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `upgrade` a subcommand of its own."""


@app.command()
def upgrade() -> None:
    """Bring the schema up to date. Safe to run at any time, by several at once."""
    with existing() as client:
        before, _ = client.revisions()
        client.upgrade()
        after, _ = client.revisions()
    results.print(f"schema at {after}" if before == after else f"schema upgraded from {before or 'nothing'} to {after}")
