"""`qa-worker endpoints`: who gets alerts. A secret is printed once, when it is made; a URL never is."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from qa_worker.application.delivering import Endpoint
from qa_worker.cli import render
from qa_worker.cli.console import results
from qa_worker.cli.places import existing
from qa_worker.domain.endpoint import EndpointKind

app = typer.Typer(help="Receivers of alerts: webhooks, Slack, and whatever Apprise knows.", no_args_is_help=True)

Workspace = Annotated[str, typer.Option(help="The workspace whose alerts they get.")]
Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


@app.command("add")
def add(
    url: Annotated[
        str, typer.Option(help="Where alerts are sent, kept encrypted and never shown again; - reads it from stdin.")
    ],
    kind: Annotated[EndpointKind, typer.Option(help="How the receiver is spoken to.")] = EndpointKind.WEBHOOK,
    name: Annotated[str | None, typer.Option(help="How rules and commands call it; its kind unless given.")] = None,
    workspace: Workspace = "default",
    as_json: AsJson = False,
) -> None:
    """Add a receiver. A webhook's secret is printed this once; its receiver checks signatures with it."""
    chosen = name or kind.value
    # A URL that is a secret, as Slack's is, need not stand in the shell's history.
    url = sys.stdin.readline().strip() if url == "-" else url
    with existing() as client:
        made = client.alerts.add_endpoint(workspace=workspace, name=chosen, kind=kind, url=url)
    if as_json:
        shown = {"id": str(made.id), "name": chosen, "kind": kind.value, "target": made.target_hint}
        print(json.dumps({**shown, "secret": made.secret}))  # noqa: T201 - what --json promises
        return
    results.print(f"endpoint {render.plain(chosen)!r} is added: {kind.value} to {render.plain(made.target_hint)}")
    if made.secret is not None:
        _show_secret(made.secret)
    results.print(f"Try it: qa-worker alerts test {render.plain(chosen)}", style="dim")


@app.command("list")
def list_(
    workspace: Annotated[str | None, typer.Option(help="Only those of this workspace.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show receivers and how they fare. Of a URL only the scheme, the host and the port are shown."""
    with existing() as client:
        found = client.alerts.endpoints(workspace)
    if as_json:
        for endpoint in found:
            print(json.dumps(_as_dict(endpoint), default=str))  # noqa: T201 - what --json promises
    elif found:
        results.print(_table(found))
    else:
        results.print("No endpoint yet. `qa-worker endpoints add --url https://...` makes one.")


@app.command("rotate-secret")
def rotate_secret(name: Name, workspace: Workspace = "default", as_json: AsJson = False) -> None:
    """Give a webhook a new secret, printed this once. For a while (QA_SECRET_OVERLAP_S) the old one signs, too."""
    with existing() as client:
        secret = client.alerts.rotate_secret(workspace=workspace, name=name)
    if as_json:
        print(json.dumps({"name": name, "secret": secret}))  # noqa: T201 - what --json promises
    else:
        _show_secret(secret)


@app.command("disable")
def disable(name: Name, workspace: Workspace = "default", as_json: AsJson = False) -> None:
    """Send nothing more to it. What waits for it becomes dead letters, which can be replayed when it is on again."""
    with existing() as client:
        buried = client.alerts.switch_endpoint(workspace=workspace, name=name, on=False)
    if as_json:
        print(json.dumps({"name": name, "state": "disabled", "dead_letters": buried}))  # noqa: T201 - what --json promises
    else:
        results.print(f"endpoint {render.plain(name)!r} is switched off; {buried} waiting alerts became dead letters")


@app.command("enable")
def enable(name: Name, workspace: Workspace = "default", as_json: AsJson = False) -> None:
    """Send to it again, from the next alert on. Its dead letters wait for `qa-worker dead-letters replay`."""
    with existing() as client:
        client.alerts.switch_endpoint(workspace=workspace, name=name, on=True)
    if as_json:
        print(json.dumps({"name": name, "state": "active"}))  # noqa: T201 - what --json promises
    else:
        results.print(f"endpoint {render.plain(name)!r} is switched on")
        results.print(f"Its dead letters: qa-worker dead-letters list --endpoint {render.plain(name)}", style="dim")


@app.command("reseal")
def reseal(as_json: AsJson = False) -> None:
    """Encrypt every URL and secret anew with the first key of QA_SECRET_KEYS, so that older keys can be taken away."""
    with existing() as client:
        sealed = client.alerts.reseal_endpoints()
    if as_json:
        print(json.dumps({"resealed": sealed}))  # noqa: T201 - what --json promises
    else:
        results.print(f"{sealed} endpoints are encrypted with the first key")


def _show_secret(secret: str) -> None:
    # To stdout as it is: a line that wraps can't be copied.
    results.print("Its secret, shown this once:")
    results.print(secret, soft_wrap=True, highlight=False)


def _state(endpoint: Endpoint) -> str:
    if not endpoint.active:
        return "disabled"
    return "failing" if endpoint.health.consecutive_failures else "active"


def _took(endpoint: Endpoint) -> str:
    took_s = endpoint.health.took_s
    return "-" if took_s is None else f"{took_s:.1f} s"


def _as_dict(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.ref.id,
        "workspace": endpoint.ref.workspace_name,
        "name": endpoint.ref.name,
        "kind": endpoint.ref.kind.value,
        "target": endpoint.target_hint,
        "state": _state(endpoint),
        "disabled_reason": endpoint.disabled_reason or None,
        "consecutive_failures": endpoint.health.consecutive_failures,
        "failing_since": endpoint.health.failing_since,
        "paused_until": endpoint.health.paused_until,
        "took_s": endpoint.health.took_s,
        "last_success_at": endpoint.last_success_at,
        "created_at": endpoint.created_at,
    }


def _table(found: Sequence[Endpoint]) -> Table:
    table = Table("Workspace", "Name", "Kind", "Target", "State", "Failures", "Takes", "Last success", "Why it is off")
    for one in found:
        last = "-" if one.last_success_at is None else f"{one.last_success_at:%d %b %H:%M} UTC"
        texts = (one.ref.workspace_name, one.ref.name, one.ref.kind.value, one.target_hint, _state(one))
        why = render.plain(one.disabled_reason)
        table.add_row(*map(render.plain, texts), str(one.health.consecutive_failures), _took(one), last, why)
    return table
