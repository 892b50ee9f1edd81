"""`qa-worker`: one command a file; each parses, makes one inward call and renders what came back."""

from __future__ import annotations

import sys

import typer

from qa_worker.cli import db, doctor, evaluate, rubric, show, stack
from qa_worker.cli.console import errors
from qa_worker.domain.errors import InvalidInput, StoreUnavailable
from qa_worker.embedded.stack import LocalStackError

app = typer.Typer(
    name="qa-worker",
    help="VoiceNoob QA: grades the calls of voice agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("evaluate")(evaluate.evaluate)
app.command("show")(show.show)
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.command("doctor")(doctor.doctor)
app.add_typer(db.app, name="db")
app.add_typer(rubric.app, name="rubric")


def main() -> None:
    """Run a command; what went wrong is one line, with what to do."""
    try:
        app()
    except InvalidInput as error:
        errors.print(f"[red]{type(error).__name__}[/red]", str(error), highlight=False)
        sys.exit(2)
    except (StoreUnavailable, LocalStackError) as error:
        errors.print("[red]error:[/red]", str(error), highlight=False, markup=True)
        errors.print("`qa-worker doctor` tells what is wrong and how to mend it.")
        sys.exit(3)


if __name__ == "__main__":
    main()
