"""`qa-worker alerts`: what was told, to whom, and whether it arrived; and a test event."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Column, Table

from qa_worker.application.alert_queries import AlertView, DeliveryView, TryView
from qa_worker.application.channels import Answer
from qa_worker.cli import render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing

app = typer.Typer(help="Alerts that were raised, and their deliveries.", no_args_is_help=True)
_BAD_INPUT, _NOT_DELIVERED = 2, 1
_TITLE_CHARS = 60

Workspace = Annotated[str, typer.Option(help="Whose alerts.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


@app.command("list")
def list_(
    workspace: Workspace = "default",
    before: Annotated[uuid.UUID | None, typer.Option(help="Go on behind the alert with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List alerts, the newest first, one JSON object a line with --json."""
    with existing() as client:
        found = client.alerts.queries.alerts(workspace, before=before, limit=limit)
    if as_json:
        for alert in found:
            print(json.dumps(asdict(alert), ensure_ascii=False, default=str))  # noqa: T201 - what --json promises
        return
    if not found:
        results.print("No alert yet." if before is None else "No older alert.")
        return
    table = Table(Column("Alert", no_wrap=True), "Raised (UTC)", "Severity", "What", "Deliveries")
    for alert in found:
        title = render.cut(alert.title, _TITLE_CHARS)
        table.add_row(
            str(alert.id), f"{alert.created_at:%d %b %H:%M:%S}", alert.severity, render.plain(title), _deliveries(alert)
        )
    results.print(table)
    if len(found) == limit:
        results.print(f"Older ones: --before {found[-1].id}", style="dim", highlight=False)


@app.command("show")
def show(alert: Annotated[uuid.UUID, typer.Argument(help="The alert's id.")], as_json: AsJson = False) -> None:
    """Show one alert: the document that is sent, every delivery, every try and what came back."""
    with existing() as client:
        found = client.alerts.queries.alert(alert)
    if found is None:
        errors.print(f"No alert {alert} is known. See `qa-worker alerts list`.")
        raise typer.Exit(_BAD_INPUT)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False, default=str))  # noqa: T201 - what --json promises
        return
    results.rule(render.plain(f"{found.title}  ({found.event}, {found.severity})"), align="left")
    results.print(f"workspace {render.plain(found.workspace)}, raised {found.created_at:%Y-%m-%d %H:%M:%S} UTC")
    results.print(render.plain_lines(json.dumps(found.body, indent=2, ensure_ascii=False)), highlight=False)
    for delivery in found.deliveries:
        _show_delivery(delivery)


@app.command("test")
def try_(
    endpoint: Annotated[str, typer.Argument(help="The endpoint's name.")],
    workspace: Workspace = "default",
    as_json: AsJson = False,
) -> None:
    """Send a test event right now and print what came back. Nothing of it is stored. Exit 1 where it did not arrive."""
    with existing() as client:
        answer = client.alerts.try_endpoint(workspace=workspace, name=endpoint)
    if as_json:
        print(json.dumps({"delivered": answer.failure is None, **asdict(answer)}, default=str))  # noqa: T201 - what --json promises
    else:
        _show_answer(answer)
    if answer.failure is not None:
        raise typer.Exit(_NOT_DELIVERED)


def show_try(one: TryView) -> None:
    """A try and what came back, on a line or two."""
    status = "" if one.status_code is None else f" {one.status_code}"
    took = "" if one.duration_ms is None else f" in {one.duration_ms} ms"
    error = f": {one.error_code} {one.error_message}" if one.error_kind else ""
    line = f"    {one.started_at:%H:%M:%S} try {one.attempt} {one.result}{status}{took}{error}"
    results.print(render.plain(line), highlight=False)
    if one.response_head:
        results.print("      answer:", render.plain(one.response_head), highlight=False)


def _deliveries(alert: AlertView) -> str:
    shown = [f"{render.plain(one.endpoint)} {_state(one)}" for one in alert.deliveries]
    return ", ".join(shown) or "nobody"


def _state(delivery: DeliveryView) -> str:
    colours = {"done": "[green]delivered[/green]", "dead": "[red]dead[/red]"}
    replay = " (replay)" if delivery.replay_of else ""
    return colours.get(delivery.state, delivery.state) + replay


def _show_delivery(delivery: DeliveryView) -> None:
    results.print()
    results.print(
        f"  to {render.plain(delivery.endpoint)} ({delivery.endpoint_kind}):",
        _state(delivery),
        f"after {delivery.attempt} of {delivery.max_attempts} tries, webhook-id {render.plain(delivery.message_id)}",
        highlight=False,
    )
    if delivery.state in ("pending", "queued") and delivery.wait_reason:
        wait = f"{delivery.wait_reason}, not before {delivery.not_before:%H:%M:%S} UTC"
        results.print("    waits:", render.plain(wait), highlight=False)
    for one in delivery.tries:
        show_try(one)


def _show_answer(answer: Answer) -> None:
    status = "no HTTP answer" if answer.status is None else f"HTTP {answer.status}"
    if answer.failure is None:
        results.print(f"[green]delivered[/green]: {status} in {answer.duration_ms} ms", highlight=False)
    else:
        why = render.plain(f"{answer.failure.code}: {answer.failure.message}")
        results.print(f"[red]not delivered[/red]: {status} after {answer.duration_ms} ms; {why}", highlight=False)
    if answer.head:
        results.print("answer:", render.plain(answer.head), highlight=False)
