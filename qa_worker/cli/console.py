"""Where commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

from rich.console import Console

results = Console(soft_wrap=False)
errors = Console(stderr=True)
