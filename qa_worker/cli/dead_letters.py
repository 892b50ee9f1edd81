"""`qa-worker dead-letters`: what was given up on, and what is to become of it."""

from __future__ import annotations

import getpass
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from qa_worker.application.alert_queries import LetterView
from qa_worker.application.dead_letters import Refused, Replay, Replayed
from qa_worker.cli import render
from qa_worker.cli.alerts import show_try
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing
from qa_worker.cli.times import to_time
from qa_worker.domain.dead_letter import Choice, LetterKind, LetterState

app = typer.Typer(
    help="Dead letters: alerts, evaluations, runs and messages that were given up on.", no_args_is_help=True
)
_BAD_INPUT, _SOME_REFUSED = 2, 1
_ERROR_CHARS = 50

Ids = Annotated[list[uuid.UUID] | None, typer.Argument(help="Certain letters, by their ids.")]
Kind = Annotated[LetterKind | None, typer.Option(help="Only what was this.")]
QueueName = Annotated[str | None, typer.Option("--queue", help="Only what came from this queue.")]
Workspace = Annotated[str | None, typer.Option(help="Only those of this workspace.")]
Endpoint = Annotated[str | None, typer.Option(help="Only alerts to the endpoint of this name.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason, such as http_500 or unknown_task.")]
Since = Annotated[str | None, typer.Option(help="Only what died at or after this time: ISO 8601, UTC unless it says.")]
Until = Annotated[str | None, typer.Option(help="Only what died before this time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell how many letters are meant.")]
By = Annotated[str | None, typer.Option(help="Who does it, for the record; the user of this machine unless given.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


@app.command("list")
def list_(
    *,
    kind: Kind = None,
    queue: QueueName = None,
    workspace: Workspace = None,
    endpoint: Endpoint = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[LetterState, typer.Option(help="What became of them.")] = LetterState.OPEN,
    every: Annotated[bool, typer.Option("--all", help="Whatever became of them.")] = False,
    before: Annotated[uuid.UUID | None, typer.Option(help="Go on behind the letter with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first: the open ones, unless another state is asked for."""
    choice = _choice(kind, queue, workspace, endpoint, reason, since, until, state=None if every else state)
    with existing() as client:
        found = client.alerts.queries.letters(choice, before=before, limit=limit)
        count = client.alerts.count_letters(choice)
    if as_json:
        for letter in found:
            print(json.dumps(_as_dict(letter), ensure_ascii=False, default=str))  # noqa: T201 - what --json promises
        return
    if found:
        results.print(_table(found))
    results.print(f"{count:,} dead letters" + (f"; {len(found)} are shown" if len(found) < count else ""))
    if len(found) == limit:
        results.print(f"Older ones: --before {found[-1].id}", style="dim", highlight=False)


@app.command("show")
def show(letter: Annotated[uuid.UUID, typer.Argument(help="The letter's id.")], as_json: AsJson = False) -> None:
    """Show one letter: what died, every try, what became of it."""
    with existing() as client:
        found = client.alerts.queries.letter(letter)
    if found is None:
        errors.print(f"No dead letter {letter} is known. See `qa-worker dead-letters list --all`.")
        raise typer.Exit(_BAD_INPUT)
    if as_json:
        print(json.dumps(_as_dict(found), ensure_ascii=False, default=str))  # noqa: T201 - what --json promises
    else:
        _show(found)


@app.command("replay")
def replay(
    *,
    ids: Ids = None,
    kind: Kind = None,
    queue: QueueName = None,
    workspace: Workspace = None,
    endpoint: Endpoint = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open letter.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the oldest first.")] = 100,
    rate: Annotated[float, typer.Option(min=0.01, max=1000, help="So many a second.")] = 5.0,
    dry_run: DryRun = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Let what was given up on begin anew, with a fresh budget of tries. Exit 1 where some could not be replayed.

    An alert goes to its endpoint again with the same webhook-id; an evaluation is graded again; a run goes on at the turn
    where it stood; a message is sent again if it can be read by now. Two who replay the same letter make one delivery.
    """
    choice = _choice(kind, queue, workspace, endpoint, reason, since, until, ids=ids)
    _named(choice, everything=everything)
    with existing() as client:
        if dry_run:
            _show_count(client.alerts.count_letters(choice), limit, "replayed", as_json=as_json)
            return
        answers = [
            _told(answer, as_json=as_json)
            for answer in client.alerts.replay(choice, limit=limit, rate=rate, by=_who(by))
        ]
    replayed = sum(isinstance(answer, Replayed) for answer in answers)
    if not as_json:
        results.print(f"{replayed} of {len(answers)} dead letters were replayed")
    if replayed < len(answers):
        raise typer.Exit(_SOME_REFUSED)


@app.command("discard")
def discard(
    *,
    ids: Ids = None,
    kind: Kind = None,
    queue: QueueName = None,
    workspace: Workspace = None,
    endpoint: Endpoint = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open letter.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the oldest first.")] = 100,
    note: Annotated[str, typer.Option(help="Why, for those who look later.")] = "",
    dry_run: DryRun = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Close letters that nobody wants replayed. They stay listed with --state discarded until they are too old."""
    choice = _choice(kind, queue, workspace, endpoint, reason, since, until, ids=ids)
    _named(choice, everything=everything)
    with existing() as client:
        if dry_run:
            _show_count(client.alerts.count_letters(choice), limit, "discarded", as_json=as_json)
            return
        discarded = client.alerts.discard(choice, limit=limit, by=_who(by), reason=note)
    if as_json:
        print(json.dumps({"discarded": discarded}))  # noqa: T201 - what --json promises
    else:
        results.print(f"{discarded} dead letters were discarded")


def _choice(
    kind: LetterKind | None,
    queue: str | None,
    workspace: str | None,
    endpoint: str | None,
    reason: str | None,
    since: str | None,
    until: str | None,
    *,
    ids: Sequence[uuid.UUID] | None = None,
    state: LetterState | None = LetterState.OPEN,
) -> Choice:
    return Choice(
        kind=kind,
        queue=queue,
        workspace=workspace,
        endpoint=endpoint,
        reason=reason,
        since=to_time("--since", since),
        until=to_time("--until", until),
        ids=tuple(ids) if ids else None,
        state=state,
    )


def _named(choice: Choice, *, everything: bool) -> None:
    """Everything is never meant by accident."""
    if (choice == Choice()) != everything:
        errors.print("Name letters by ids or filters, or use --all for every open one, but not both.")
        raise typer.Exit(_BAD_INPUT)


def _who(by: str | None) -> str:
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _show_count(count: int, limit: int, what: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"matching": count, "limit": limit, what: 0}))  # noqa: T201 - what --json promises
    else:
        left = f" in steps of {limit:,} (--limit)" if count > limit else ""
        results.print(f"{count:,} open dead letters are meant; they would be {what}{left}. Nothing was done.")


def _told(answer: Replay, *, as_json: bool) -> Replay:
    if as_json:
        shown = {"replayed": isinstance(answer, Replayed), **asdict(answer)}
        print(json.dumps(shown, default=str), flush=True)  # noqa: T201 - what --json promises
    elif isinstance(answer, Refused):
        errors.print(f"[yellow]not replayed[/yellow] {answer.letter_id}: {render.plain(answer.why)}", highlight=False)
    return answer


def _as_dict(letter: LetterView) -> dict[str, Any]:
    return asdict(letter)


def _table(found: Sequence[LetterView]) -> Table:
    table = Table(
        Column("Letter", no_wrap=True),
        "Died (UTC)",
        "Kind",
        "From",
        "Reason",
        "Tries",
        "Deaths",
        "Became",
        "Last error",
    )
    for one in found:
        table.add_row(
            str(one.id),
            f"{one.died_at:%d %b %H:%M:%S}",
            one.kind,
            render.plain(one.endpoint or one.queue),
            render.plain(one.reason),
            str(one.attempts),
            str(one.deaths),
            render.plain(_became(one)),
            render.plain(render.cut(one.last_error, _ERROR_CHARS)),
        )
    return table


def _became(letter: LetterView) -> str:
    return f"{letter.state}: {letter.outcome}" if letter.outcome else letter.state


def _show(letter: LetterView) -> None:
    where = " ".join(filter(None, (letter.workspace, letter.endpoint and f"to {letter.endpoint}")))
    results.rule(render.plain(f"{letter.kind} {letter.reason}  {where}"), align="left")
    times = f", for the {letter.deaths}. time" if letter.deaths > 1 else ""
    facts = [
        f"died {letter.died_at:%Y-%m-%d %H:%M:%S} UTC after {letter.attempts} tries{times}",
        f"queue {letter.queue}, task {letter.task or 'none'}",
        f"first error: {letter.first_error}",
        f"last error: {letter.last_error}",
        f"payload: {json.dumps(letter.payload, ensure_ascii=False)}",
        _became(letter),
    ]
    if letter.again_of:
        facts.append(f"its work was the replay of letter {letter.again_of}")
    if letter.settled_at:
        note = f": {letter.note}" if letter.note else ""
        facts.append(f"{letter.state} by {letter.settled_by}, {letter.settled_at:%Y-%m-%d %H:%M:%S} UTC{note}")
    if letter.replay_ref:
        facts.append(f"began anew as {letter.replay_ref}")
    for fact in facts:
        results.print(" ", render.plain(fact), highlight=False)
    for one in letter.tries:
        show_try(one)
