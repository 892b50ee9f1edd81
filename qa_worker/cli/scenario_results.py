"""Results of suite runs for the commands: found, watched to their end, told."""

from __future__ import annotations

import uuid
from pathlib import Path

import typer

from qa_worker import bootstrap
from qa_worker.application.running import RunView
from qa_worker.cli.console import errors, results
from qa_worker.cli.render import plain
from qa_worker.cli.scenario_live import Board, follow
from qa_worker.cli.scenario_render import scenario_table, summary
from qa_worker.domain.comparison import Change, Comparison, readable
from qa_worker.domain.suite import ExitCode, SuiteResult

_RECENT = 1000
_COLOURS = {
    Change.REGRESSED: "red",
    Change.IMPROVED: "green",
    Change.NO_DIFFERENCE: "green",
    Change.TOO_FEW: "yellow",
    Change.UNTESTED: "yellow",
}


def watched(
    suites: bootstrap.Suites, suite_run_id: uuid.UUID, *, workspace: str, timeout_s: float, kept: bool = True
) -> SuiteResult:
    """The result of a suite run that was watched to its end, or until the time was up."""
    over = False
    try:
        with Board() as board:
            over = follow(suites, suite_run_id, board, workspace=workspace, timeout_s=timeout_s)
    except KeyboardInterrupt:
        if not kept:
            raise
    if not over and kept:
        errors.print(f"It goes on. `qa-worker scenarios watch {suite_run_id}` watches it, `cancel` stops it.")
    return result_of(suites, suite_run_id, workspace)


def tell(result: SuiteResult, *, junit: Path | None = None, as_json: bool) -> None:
    """On stdout for people or as JSON; as JUnit XML in a file, too, where one is named."""
    if junit is not None:
        junit.write_text(bootstrap.junit_xml(result), encoding="utf-8")
    if as_json:
        print(bootstrap.suite_json(result), end="")  # noqa: T201 - stdout holds this document and nothing else
        return
    results.print(scenario_table(result, width=results.width))
    results.print(summary(result))


def result_of(suites: bootstrap.Suites, suite_run_id: uuid.UUID, workspace: str) -> SuiteResult:
    """What is known of a suite run. Exits with 2 where the workspace has none such."""
    found = suites.result(suite_run_id, workspace=workspace)
    if found is None:
        errors.print(
            f"No suite run {suite_run_id} is known in workspace {plain(workspace)!r}. "
            "`qa-worker scenarios list` lists them.",
            highlight=False,
        )
        raise typer.Exit(ExitCode.BAD_INPUT)
    return found


def find_suite_run(suites: bootstrap.Suites, given: str, workspace: str) -> uuid.UUID:
    """The suite run that is meant. Exits with 2 where there is none, or more than one.

    A whole id is taken as it is; the beginning of one is looked for among the latest of the workspace.
    """
    whole = as_uuid(given)
    if whole is not None:
        result_of(suites, whole, workspace)
        return whole
    fits = [one.id for one in suites.recent(workspace, limit=_RECENT) if str(one.id).startswith(given.casefold())]
    if len(fits) != 1 or not given:
        number = f"{len(fits)} suite runs begin with" if fits else "No suite run is called"
        errors.print(f"{number} {plain(given)!r}. `qa-worker scenarios list` lists them.", highlight=False)
        raise typer.Exit(ExitCode.BAD_INPUT)
    return fits[0]


def find_run(suites: bootstrap.Suites, given: str, workspace: str) -> RunView:
    """The run that is meant, by its id or the beginning of it. Exits with 2 where there is none, or more than one."""
    whole = as_uuid(given)
    fits = [whole] if whole else suites.runs_beginning(given, workspace=workspace, limit=2) if given else []
    view = suites.run(fits[0], workspace=workspace) if len(fits) == 1 else None
    if view is None:
        number = "More than one run begins with" if len(fits) > 1 else "No run is called"
        errors.print(
            f"{number} {plain(given)!r} in workspace {plain(workspace)!r}. "
            "`qa-worker scenarios report SUITE_RUN --json` has their ids.",
            highlight=False,
        )
        raise typer.Exit(ExitCode.BAD_INPUT)
    return view


def as_uuid(text: str) -> uuid.UUID | None:
    """The id, where the text is a whole one."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def tell_comparison(comparison: Comparison) -> None:
    """The verdict in its colour, and what it rests on."""
    verdict, *rest = readable(comparison)
    results.print(f"[{_COLOURS[comparison.verdict]}]{plain(verdict)}[/]", highlight=False)
    for line in rest:
        results.print(plain(line), highlight=False, soft_wrap=True)
