"""Where commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

from rich.console import Console

_WIDTH_OF_A_FILE = 120


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    # Where nobody's terminal sets a width (a pipe, CI), lines may be longer than Rich's 80 columns.
    return console if console.is_terminal else Console(stderr=stderr, width=_WIDTH_OF_A_FILE)


results = _console(stderr=False)
errors = _console(stderr=True)
