"""`qa-worker`: one command a file; each parses, makes one inward call and renders what came back."""

from __future__ import annotations

import signal
import sys

import typer
from pydantic import ValidationError

from qa_worker import bootstrap
from qa_worker.cli import (
    alerts,
    backlog,
    budget,
    db,
    dead_letters,
    diff,
    doctor,
    endpoints,
    evaluate,
    retry,
    rubric,
    rules,
    scenarios,
    show,
    stack,
)
from qa_worker.cli.console import errors
from qa_worker.cli.render import plain
from qa_worker.domain.errors import InvalidInput, StoreUnavailable
from qa_worker.embedded.stack import LocalStackError

_BAD_INPUT, _NO_SERVICE, _OUR_FAULT = 2, 3, 70

app = typer.Typer(
    name="qa-worker",
    help="VoiceNoob QA: grades the calls of voice agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("evaluate")(evaluate.evaluate)
app.command("show")(show.show)
app.command("retry")(retry.retry)
app.command("diff")(diff.diff)
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.command("doctor")(doctor.doctor)
app.add_typer(db.app, name="db")
app.add_typer(backlog.app, name="backlog")
app.add_typer(budget.app, name="budget")
app.add_typer(rules.app, name="rules")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(alerts.app, name="alerts")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(rubric.app, name="rubric")
app.add_typer(scenarios.app, name="scenarios")


def main() -> None:
    """Run a command; what went wrong is one line, with what to do. Exit codes: 2 bad input, 3 services, 70 our fault."""
    signal.signal(signal.SIGTERM, _interrupted)
    bootstrap.log_to_stderr()
    try:
        app()
    except (InvalidInput, ValidationError, UnicodeDecodeError) as error:
        errors.print("[red]bad input:[/red]", plain(_one_line(error)), highlight=False)
        sys.exit(_BAD_INPUT)
    except (StoreUnavailable, LocalStackError) as error:
        errors.print("[red]error:[/red]", plain(str(error)), highlight=False)
        errors.print("`qa-worker doctor` tells what is wrong and how to mend it.")
        sys.exit(_NO_SERVICE)
    except Exception:  # noqa: BLE001 - the edge of the process: an error of ours must not look like a verdict (exit 1)
        errors.print_exception(show_locals=False)
        sys.exit(_OUR_FAULT)


def _interrupted(_signal: int, _frame: object) -> None:
    """SIGTERM ends a command like Ctrl-C does: what it started is stopped, what it made is removed."""
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)


if __name__ == "__main__":
    main()
