"""`qa-worker scenarios`: check scenario files, run them against an agent, watch, report and compare the results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from qa_worker import bootstrap
from qa_worker.application.playing import AgentKind, Target
from qa_worker.application.running import WantedSuite
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing, existing_or_temporary
from qa_worker.cli.render import plain
from qa_worker.cli.scenario_conversation import conversation
from qa_worker.cli.scenario_files import foreign_rubrics, misfits, read_scenarios, unanswered
from qa_worker.cli.scenario_render import recent_table
from qa_worker.cli.scenario_results import as_uuid, find_run, find_suite_run, result_of, tell, tell_comparison, watched
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.comparison import compare
from qa_worker.domain.drafting import draft
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.scenario import Scenario
from qa_worker.domain.suite import ExitCode

app = typer.Typer(
    help="Scenarios: a simulated caller tests an agent. docs/scenarios.md describes files, agents and results.",
    no_args_is_help=True,
)

Paths = Annotated[list[Path], typer.Argument(help="Scenario files, or folders with them.")]
SuiteRun = Annotated[str, typer.Argument(help="The suite run's id, or the beginning of it.")]
Workspace = Annotated[str, typer.Option(help="The workspace that the suite run belongs to.")]
Junit = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the result as JUnit XML to this file, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as one JSON document on stdout, nothing else.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait for the end of the suite run.")]


@app.command()
def validate(
    paths: Paths,
    agent: Annotated[
        list[Path] | None, typer.Option(help="Agent files: do the scenarios fit them? Several may be given.")
    ] = None,
) -> None:
    """Check scenario files. Every fault is told with its file, line, field and fix; exit 2 where there is any."""
    found = read_scenarios(paths)
    faults = [*found.faults, *(fault for file in agent or () for fault in bootstrap.agent_faults(file))]
    agents = [(file, *bootstrap.read_agent(file)) for file in agent or () if not bootstrap.agent_faults(file)]
    # Of an agent that can't be read nobody knows what fits it.
    if len(agents) == len(agent or ()) > 0:
        faults += misfits(found.scenarios, [one for _, one, _ in agents])
    _refuse(faults)
    warnings = (*foreign_rubrics(found.scenarios), *(text for one in agents for text in unanswered(*one)))
    for warning in warnings:
        errors.print(f"[yellow]warning[/yellow] {plain(warning)}", highlight=False, soft_wrap=True)
    results.print(f"{len(found.scenarios)} of {found.files} scenario files are good")


@app.command()
def run(
    paths: Paths,
    *,
    agent: Annotated[Path, typer.Option(help="The file of the agent under test.")],
    workspace: Workspace = "default",
    name: Annotated[str, typer.Option(help="What the suite is called; the agent's id unless given.")] = "",
    label: Annotated[
        str, typer.Option(help="What this version of the agent is called; its version unless given.")
    ] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Only scenarios with this tag, or one of these.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, max=100, help="How often each is run, whatever it says itself.")
    ] = None,
    max_parallel: Annotated[int, typer.Option(min=1, help="Runs of this suite that are under way at once.")] = 32,
    max_turns: Annotated[
        int | None, typer.Option(min=1, max=200, help="Of each run, whatever the scenario says itself.")
    ] = None,
    judge: Annotated[JudgeKind | None, typer.Option(help="Claude, or rules that look at evidence alone.")] = None,
    junit: Junit = None,
    as_json: AsJson = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until it is over, or print its id.")] = True,
    timeout: Timeout = 3600.0,
) -> None:
    """Run scenarios against an agent and tell what came of it.

    Uses the running stack (or DATABASE_URL and BROKER_URL); where there is none, a temporary one is started and removed.

    Exit codes: 0 all passed; 1 the agent failed; 2 bad input; 3 could not test (errors, invalid or cancelled runs).
    """
    under_test, target = bootstrap.read_agent(agent)
    scenarios = _chosen(paths, under_test, tags=tag or [], max_turns=max_turns)
    _check_writable(junit)
    wanted = WantedSuite(
        name=name or under_test.agent.id,
        scenarios=scenarios,
        agent=under_test,
        target=target,
        max_parallel=max_parallel,
        repeats=repeats,
        label=label,
        judge=judge,
        created_by="qa-worker scenarios run",
    )
    if not wait:
        with existing() as client:
            print(client.suites.start(wanted, workspace=workspace))  # noqa: T201 - the id alone, for scripts
        return
    with existing_or_temporary() as place:
        _announce(wanted, target, place.client.judge if judge is None else judge)
        suite_run_id = place.client.suites.start(wanted, workspace=workspace)
        result = watched(
            place.client.suites, suite_run_id, workspace=workspace, timeout_s=timeout, kept=not place.temporary
        )
    tell(result, junit=junit, as_json=as_json)
    if not place.temporary:
        errors.print(f"Suite run {suite_run_id}", highlight=False)
    raise typer.Exit(result.exit_code)


@app.command()
def watch(
    suite_run: SuiteRun, workspace: Workspace = "default", as_json: AsJson = False, timeout: Timeout = 3600.0
) -> None:
    """Watch a suite run to its end, what happened before first; exit codes as of `run`."""
    with existing() as client:
        suite_run_id = find_suite_run(client.suites, suite_run, workspace)
        result = watched(client.suites, suite_run_id, workspace=workspace, timeout_s=timeout)
    tell(result, as_json=as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def cancel(
    suite_or_run: Annotated[str, typer.Argument(help="The id of a suite run (or its beginning), or of one run.")],
    workspace: Workspace = "default",
) -> None:
    """Stop a suite run, or one run: what waits at once, what runs before its next turn. What happened is kept."""
    with existing() as client:
        wanted = as_uuid(suite_or_run)
        if wanted is not None and client.suites.cancel_run(wanted, workspace=workspace):
            results.print(f"run {wanted} is cancelled, unless it is over already", highlight=False)
            return
        suite_run_id = find_suite_run(client.suites, suite_or_run, workspace)
        client.suites.cancel(suite_run_id, workspace=workspace)
    results.print(f"suite run {suite_run_id} is cancelled, as far as it is not over already", highlight=False)


@app.command("compare")
def compare_suites(
    before: SuiteRun,
    after: Annotated[str, typer.Argument(help="The suite run of the new version, with the same scenarios.")],
    workspace: Workspace = "default",
    as_json: AsJson = False,
) -> None:
    """Tell whether the agent got worse from one suite run to another. Exit 1 where it did, 3 where that can't be told."""
    with existing() as client:
        old, new = (
            result_of(client.suites, find_suite_run(client.suites, one, workspace), workspace)
            for one in (before, after)
        )
    comparison = compare(old, new)
    if as_json:
        print(bootstrap.comparison_json(comparison), end="")  # noqa: T201 - what --json promises
    else:
        tell_comparison(comparison)
    raise typer.Exit(comparison.exit_code)


@app.command()
def report(suite_run: SuiteRun, workspace: Workspace = "default", junit: Junit = None, as_json: AsJson = False) -> None:
    """Tell what came of a suite run; exit codes as of `run`, so that one that is not over yet exits 3."""
    _check_writable(junit)
    with existing() as client:
        result = result_of(client.suites, find_suite_run(client.suites, suite_run, workspace), workspace)
    tell(result, junit=junit, as_json=as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The run's id, or the beginning of it.")],
    workspace: Annotated[str, typer.Option(help="The workspace that the run belongs to.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Show one run: where it stands and why, and its conversation so far, also where nothing of it was graded."""
    with existing() as client:
        view = find_run(client.suites, run, workspace)
    if as_json:
        print(bootstrap.run_json(view), end="")  # noqa: T201 - what --json promises
        return
    results.print(conversation(view), highlight=False)


@app.command("list")
def list_suites(
    workspace: Workspace = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """List the latest suite runs of a workspace."""
    with existing() as client:
        results.print(recent_table(client.suites.recent(workspace, limit=limit)))


@app.command("from-call")
def from_call(
    call: Annotated[str, typer.Argument(help="The call's id, yours or ours, or its external_id.")],
    workspace: Annotated[str, typer.Option(help="The workspace that the call belongs to.")] = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file that isn't there.")
    ] = None,
) -> None:
    """Draft a scenario from a call: the caller's lines, their facts, the expected outcome. To be edited and kept.

    It holds whatever the caller said about themselves: replace names and numbers of real people before you keep it.
    """
    with existing() as client:
        ids = [view.id for view in client.queries.calls(workspace, call)]
        stored = client.call(ids[0]) if len(ids) == 1 else None
    if stored is None:
        many = f"{len(ids)} calls are named" if ids else "No call is named"
        errors.print(f"{many} {plain(call)!r} in workspace {plain(workspace)!r}.", highlight=False)
        raise typer.Exit(ExitCode.BAD_INPUT)
    text = bootstrap.scenario_yaml(draft(stored))
    if output is None:
        print(text, end="")  # noqa: T201 - the file itself
        return
    _write_new(output, text)
    errors.print(f"Drafted {plain(str(output))}. Replace what is personal in it, then `scenarios validate` it.")


def _chosen(
    paths: list[Path], under_test: AgentUnderTest, *, tags: list[str], max_turns: int | None
) -> tuple[Scenario, ...]:
    """The scenarios to run. Exits with 2 where a file has a fault; raises InvalidInput where the tags leave nothing."""
    found = read_scenarios(paths)
    picked = [pair for pair in found.scenarios if not tags or set(tags) & set(pair[1].tags)]
    _refuse((*found.faults, *misfits(picked, [under_test])))
    if not picked:
        raise InvalidInput("--tag", f"leaves nothing of {len(found.scenarios)} scenarios", "Name another one")
    if max_turns is None:
        return tuple(scenario for _, scenario in picked)
    return tuple(replace(one, limits=replace(one.limits, max_turns=max_turns)) for _, one in picked)


def _refuse(faults: Sequence[InvalidInput]) -> None:
    for fault in faults:
        errors.print(f"[red]refused[/red] {plain(str(fault))}", highlight=False, soft_wrap=True)
    if faults:
        errors.print(f"{len(faults)} faults. docs/scenarios.md describes the files.", highlight=False)
        raise typer.Exit(ExitCode.BAD_INPUT)


def _check_writable(file: Path | None) -> None:
    """Before anything is run: a result that can't be written is no result."""
    if file is not None and not (file.absolute().parent.is_dir() and os.access(file.absolute().parent, os.W_OK)):
        raise InvalidInput("--junit", f"{file} can't be written: its folder isn't there, or is read-only", "Make it")


def _write_new(file: Path, text: str) -> None:
    """A draft never takes the place of one that somebody has edited."""
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except OSError as error:
        raise InvalidInput("--output", f"{file} can't be written: {error.strerror}", "Name a new file") from None


def _announce(wanted: WantedSuite, target: Target, judge: JudgeKind) -> None:
    kind = target.kind.value
    how = "by its script" if target.kind is AgentKind.SCRIPTED else f"by {kind}"
    why = "" if bootstrap.has_api_key() else " (no ANTHROPIC_API_KEY)"
    errors.print(
        f"{plain(wanted.name)}: {wanted.size} runs of {len(wanted.scenarios)} scenarios, {wanted.max_parallel} at once. "
        f"The agent is played {how}, the judge is {judge.value}{why}.",
        highlight=False,
    )
