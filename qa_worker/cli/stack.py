"""`qa-worker up | down | status`: the local stack, kept running in the background."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from qa_worker import bootstrap
from qa_worker.application.queries import Backlog
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import home
from qa_worker.cli.stack_facts import (
    gateway_as_dict,
    off_as_dict,
    show_alerting,
    show_budgets,
    show_gateway,
    show_waiting,
)
from qa_worker.cli.stack_spec import new_flower, stack_spec
from qa_worker.embedded import stack as embedded


def up(
    flower_port: Annotated[int, typer.Option(help="Flower's port on 127.0.0.1; 0 takes a free one.")] = 5555,
) -> None:
    """Start the local stack and keep it running: PostgreSQL, Valkey, workers, beat, Flower."""
    if embedded.running(home()) is not None:
        results.print("The stack is running already.")
        status(as_json=False)
        return
    database_url, broker_url = bootstrap.external_services()
    flower = new_flower(_usable_port(flower_port))
    spec = stack_spec(home(), database_url=database_url, broker_url=broker_url, flower=flower)
    with errors.status("Starting ...") as progress:
        running = embedded.start(spec, detached=True, on_progress=progress.update)
    user, _, password = flower.basic_auth.partition(":")
    access = home() / "flower.json"
    access.touch(mode=0o600)
    access.write_text(json.dumps({"url": f"http://127.0.0.1:{flower.port}", "user": user, "password": password}))
    for note in running.notes:
        results.print(note, style="dim")
    results.print("The stack is up. `qa-worker evaluate FILE` grades calls, `qa-worker status` shows what runs.")
    results.print(f"Flower: http://127.0.0.1:{flower.port}  user {user}  password {password}", highlight=False)
    if not bootstrap.has_api_key():
        results.print("No ANTHROPIC_API_KEY was set: calls are graded by rules, from evidence alone.", style="yellow")


def down(
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete its data, too: every call and every verdict.")
    ] = False,
) -> None:
    """Stop the local stack; running calls are finished first. Its data stay, unless --remove is given."""
    running = embedded.running(home())
    if running is None:
        left = embedded.clean_up(home())
        results.print(f"Stopped what was left over: {', '.join(left)}." if left else "Nothing is running.")
    else:
        with errors.status("Stopping; running calls are finished first ..."):
            running.stop()
        (home() / "flower.json").unlink(missing_ok=True)
        results.print("The stack is down.")
    if remove:
        embedded.remove(home())
        results.print("Its data are deleted.")
    elif running is not None:
        results.print("Its data are kept in", str(home()), highlight=False)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What runs, where, and how much there is to do. Exit 0 healthy, 1 not healthy, 3 not running."""
    running = embedded.running(home())
    if running is None:
        results.print("{}" if as_json else "Nothing is running. `qa-worker up` starts the local stack.")
        raise typer.Exit(3)
    healthy = running.healthy
    client = bootstrap.Client(database_url=running.database_url, broker_url=running.broker_url)
    try:
        backlog, gateway, spending = client.to_do(), client.gateway(), client.spending()
        letters = client.alerts.queries.letter_figures()
        off = [one for one in client.alerts.endpoints() if not one.active]
    finally:
        client.close()
    if as_json:
        processes = [
            {"name": p.name, "pid": p.pid, "running": p.running, "restarts": p.restarts, "log": str(p.log)}
            for p in running.processes
        ]
        facts = {"healthy": healthy, "home": str(home()), "processes": processes, "evaluations": dict(backlog.by_state)}
        facts |= {"oldest_due_s": backlog.oldest_due_s, "waits_for": backlog.waits_for}
        facts |= gateway_as_dict(gateway)
        facts |= {"budgets_micro_usd": [asdict(one) for one in spending]}
        facts |= {"dead_letters": {"depth": letters.depth, **asdict(letters)}}
        facts |= {"endpoints_off": [off_as_dict(one) for one in off]}
        print(json.dumps(facts))  # noqa: T201 - what --json promises
    else:
        _show(running, backlog, healthy=healthy)
        show_waiting(backlog.waits_for)
        show_gateway(gateway)
        show_budgets(spending)
        show_alerting(letters, off)
    raise typer.Exit(0 if healthy else 1)


def _show(running: embedded.RunningStack, backlog: Backlog, *, healthy: bool) -> None:
    table = Table("Process", "State", "Pid", "Restarts", "Log")
    for process in running.processes:
        state = "[green]running[/green]" if process.running else "[red]down[/red]"
        table.add_row(process.name, state, str(process.pid), str(process.restarts), str(process.log))
    results.print(table)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(backlog.by_state.items())) or "none yet"
    results.print(f"Evaluations: {counts}. {'Healthy.' if healthy else '[red]Not healthy.[/red]'}")
    access = home() / "flower.json"
    if access.exists():
        flower = json.loads(access.read_text())
        results.print(f"Flower: {flower['url']} (user and password: {access})", highlight=False)


def _usable_port(wanted: int) -> int:
    """`wanted` if it is free, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")
