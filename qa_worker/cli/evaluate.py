"""`qa-worker evaluate`: hand calls over through the real queue, wait, print the verdicts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qa_worker import bootstrap
from qa_worker.application.ports import Wanted
from qa_worker.application.queries import EvaluationView
from qa_worker.application.submit_call import Accepted
from qa_worker.cli import demo_alerts, demo_scenarios, render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing_or_temporary
from qa_worker.domain.call import Call
from qa_worker.domain.errors import CallConflict, InvalidInput, StoreUnavailable
from qa_worker.domain.evaluation import Verdict
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import WorkState
from qa_worker.samples import sample_files

_BATCH = 50
_POLL_S = 0.25
_BAD_INPUT, _NOT_GRADED, _VERDICT_FAIL = 2, 3, 1


class FailOn(StrEnum):
    """What makes the command itself fail."""

    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class _Read:
    calls: tuple[Call, ...]
    bad: int


def evaluate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON, JSONL or chat messages; see docs/formats.md.")
    ] = None,
    judge: Annotated[JudgeKind | None, typer.Option(help="Claude, or rules that look at evidence alone.")] = None,
    rubric: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="YAML or JSON; docs/rubrics.md.")
    ] = None,
    workspace: Annotated[str, typer.Option(help="The workspace that the calls belong to.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, nothing else.")] = False,
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit 1 when a verdict is `fail`.")] = None,
    samples: Annotated[bool, typer.Option(help="Grade the sample calls that come with the program.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the verdicts.")] = 900.0,
) -> None:
    """Grade finished calls and print their verdicts.

    Uses the running stack (or DATABASE_URL and BROKER_URL); where there is none, a temporary one is started and removed.

    Exit codes: 0 all graded; 1 with `--fail-on fail`: a verdict is `fail`; 2 bad input (the good records are graded);
    3 some could not be graded. The highest that applies is given, but bad input goes before 3.
    """
    named = bootstrap.read_rubric(rubric) if rubric else None
    read = _read([*(files or []), *(sample_files() if samples else ())])
    if not read.calls:
        errors.print("No call to grade." if read.bad else "Name a file with calls, or use --samples.")
        raise typer.Exit(_BAD_INPUT)
    demo = samples and not as_json
    # Only in a database of its own: nobody else's gets endpoints and rules by it.
    own = demo and bootstrap.external_services() == (None, None)
    with existing_or_temporary(demo_alerts.SETTINGS if own else None) as place, ExitStack() as shows:
        alerts = (
            own and place.temporary and shows.enter_context(demo_alerts.AlertShow(place.client, workspace=workspace))
        )
        _announce(place.client.judge if judge is None else judge)
        began = time.monotonic()
        accepted, conflicts = _submit(place.client, read.calls, workspace=workspace, wanted=Wanted(named, judge))
        views = _wait(place.client, [a.evaluation_id for a in accepted], timeout_s=timeout)
        elapsed_s = time.monotonic() - began
        _print(views, as_json=as_json, elapsed_s=elapsed_s, earlier=sum(not a.created for a in accepted))
        if alerts:
            alerts.gather(sum(view.verdict == Verdict.FAIL for view in views))
        if demo:
            demo_scenarios.play_samples(place.client, workspace=workspace)
        if alerts:
            alerts.tell()
    if place.temporary and not all(view.final for view in views):
        errors.print("The temporary stack is gone, and the unfinished calls with it. `qa-worker up` keeps one running.")
    raise typer.Exit(_exit_code(views, bad=read.bad + conflicts, missing=len(accepted) - len(views), fail_on=fail_on))


def _read(files: Iterable[Path]) -> _Read:
    calls: list[Call] = []
    bad = 0
    for file in files:
        try:
            for item in bootstrap.read_calls(file):
                if isinstance(item, InvalidInput):
                    errors.print(f"[red]refused[/red] {render.plain(str(item))}", highlight=False)
                    bad += 1
                else:
                    calls.append(item)
        except OSError as error:
            errors.print(
                f"[red]refused[/red] {render.plain(str(file))}: can't be read: {error.strerror}", highlight=False
            )
            bad += 1
    return _Read(tuple(calls), bad)


def _announce(kind: JudgeKind) -> None:
    if kind is JudgeKind.RULES:
        why = "" if bootstrap.has_api_key() else " (no ANTHROPIC_API_KEY)"
        errors.print(f"Judge: rules{why}. Verdicts come from evidence alone; what it can't show needs review.")
    else:
        errors.print("Judge: claude.")


def _submit(
    client: bootstrap.Client,
    calls: Sequence[Call],
    *,
    workspace: str,
    wanted: Wanted,
) -> tuple[list[Accepted], int]:
    accepted: dict[uuid.UUID, Accepted] = {}
    conflicts = 0
    for start in range(0, len(calls), _BATCH):
        batch = calls[start : start + _BATCH]
        for answer in client.submit(batch, workspace=workspace, wanted=wanted):
            if isinstance(answer, CallConflict):
                errors.print(f"[red]refused[/red] {render.plain(str(answer))}", highlight=False)
                conflicts += 1
            else:
                # The same call twice in the files is one call.
                accepted.setdefault(answer.evaluation_id, answer)
    return list(accepted.values()), conflicts


def _wait(
    client: bootstrap.Client, evaluation_ids: Sequence[uuid.UUID], *, timeout_s: float
) -> Sequence[EvaluationView]:
    """Wait until nothing more will happen by itself: every evaluation is final, or blocked until somebody mends something."""
    deadline = time.monotonic() + timeout_s
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=not errors.is_terminal) as progress:
        bar = progress.add_task("Grading", total=len(evaluation_ids))
        while True:
            over = _over(client, evaluation_ids, progress)
            progress.update(bar, completed=over)
            if over >= len(evaluation_ids) or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
    return client.queries.evaluations(evaluation_ids)


def _over(client: bootstrap.Client, evaluation_ids: Sequence[uuid.UUID], progress: Progress) -> int:
    try:
        states = client.queries.progress(evaluation_ids)
    except StoreUnavailable:
        # The calls are accepted and safe: a database that restarts is waited for.
        progress.console.print("The database is away; waiting for it.", style="dim")
        time.sleep(1)
        return 0
    return sum(one.state in (WorkState.DONE, WorkState.DEAD) or one.blocked for one in states)


def _print(views: Sequence[EvaluationView], *, as_json: bool, elapsed_s: float, earlier: int) -> None:
    if as_json:
        for view in views:
            print(render.as_json_line(view))  # noqa: T201 - stdout holds these lines and nothing else
        return
    results.print(render.verdict_table(views, width=results.width))
    results.print(render.summary(views, elapsed_s=elapsed_s))
    if earlier:
        results.print(f"{earlier} of these calls had been handed over before; each is graded once.", style="dim")


def _exit_code(views: Sequence[EvaluationView], *, bad: int, missing: int, fail_on: FailOn | None) -> int:
    if bad:
        return _BAD_INPUT
    if missing or any(render.not_graded(view) for view in views):
        return _NOT_GRADED
    if fail_on is FailOn.FAIL and any(view.verdict == Verdict.FAIL for view in views):
        return _VERDICT_FAIL
    return 0
