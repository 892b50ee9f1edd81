"""`qa-worker rules`: what ops want to hear of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from qa_worker.application.manage_rules import RuleDraft, RuleView
from qa_worker.cli import render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing
from qa_worker.domain.alert_rule import AlertSeverity, RuleKind

app = typer.Typer(help="Alert rules: what is told, to whom, how loudly. See docs/alerts.md.", no_args_is_help=True)

Workspace = Annotated[str, typer.Option(help="Whose rules.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


@app.command("add")
def add(
    *,
    kind: Annotated[RuleKind, typer.Option(help="What it looks at.")],
    name: Annotated[str | None, typer.Option(help="Its name; its kind unless given.")] = None,
    severity: Annotated[AlertSeverity, typer.Option(help="How loud its alerts are.")] = AlertSeverity.WARNING,
    endpoint: Annotated[list[str] | None, typer.Option(help="Who is told; may be repeated.")] = None,
    agent: Annotated[
        str | None, typer.Option(help="Only this agent (its id as calls name it); all without it.")
    ] = None,
    criterion: Annotated[str, typer.Option(help="Only this criterion: score_below, critical_finding.")] = "",
    threshold: Annotated[
        float | None, typer.Option(help="A score's floor, a share 0-1, a number of letters, or seconds: by kind.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Seconds to look back over.")] = None,
    min_samples: Annotated[int | None, typer.Option(help="Judged calls below which a rate says nothing.")] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Against the agent's own usual rate; with --rise.")
    ] = False,
    rise: Annotated[float | None, typer.Option(help="How much above the baseline: 0.2 is 20 % more.")] = None,
    cooldown: Annotated[int, typer.Option(help="Seconds in which further matches are gathered for one digest.")] = 900,
    workspace: Workspace = "default",
    as_json: AsJson = False,
) -> None:
    """Add a rule. It holds within 5 seconds, for what is graded from then on."""
    draft = RuleDraft(
        name=name or kind.value,
        kind=kind,
        severity=severity,
        endpoints=tuple(endpoint or ()),
        agent=agent,
        criterion=criterion,
        threshold=threshold,
        window_s=window,
        min_samples=min_samples,
        baseline=baseline,
        rise=rise,
        cooldown_s=cooldown,
    )
    with existing() as client:
        made = client.alerts.add_rule(draft, workspace=workspace)
    if as_json:
        print(json.dumps({"id": str(made.id), "name": made.name}))  # noqa: T201 - what --json promises
        return
    results.print(f"rule {render.plain(made.name)!r} is added")
    if not draft.endpoints:
        errors.print("It has no endpoint: its alerts are listed by `qa-worker alerts list` and sent to nobody.")


@app.command("list")
def list_(workspace: Workspace = "default", as_json: AsJson = False) -> None:
    """Show the rules of a workspace."""
    with existing() as client:
        found = client.alerts.rules(workspace)
    if as_json:
        for view in found:
            print(json.dumps(_as_dict(view)))  # noqa: T201 - what --json promises
    elif found:
        results.print(_table(found))
    else:
        results.print("No rule yet: nobody is told of anything. See `qa-worker rules add --help`.")


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="The rule's name.")],
    workspace: Workspace = "default",
    as_json: AsJson = False,
) -> None:
    """Remove a rule with its incidents, and with what they have gathered. The alerts that it raised stay."""
    with existing() as client:
        client.alerts.remove_rule(name, workspace=workspace)
    if as_json:
        print(json.dumps({"removed": name}))  # noqa: T201 - what --json promises
    else:
        results.print(f"rule {render.plain(name)!r} is removed")


def _as_dict(view: RuleView) -> dict[str, Any]:
    rule = view.rule
    return {
        "id": str(rule.id),
        "name": rule.name,
        "kind": rule.kind.value,
        "severity": rule.severity.value,
        "agent": view.agent,
        "endpoints": list(view.endpoints),
        "criterion": rule.criterion or None,
        "threshold": rule.threshold,
        "window_s": rule.window_s,
        "min_samples": rule.min_samples,
        "baseline": rule.baseline,
        "rise": rule.rise,
        "cooldown_s": rule.cooldown_s,
        "enabled": rule.enabled,
    }


def _table(found: Sequence[RuleView]) -> Table:
    table = Table("Name", "Kind", "Condition", "Agent", "Severity", "Endpoints", "Cooldown")
    for view in found:
        rule = view.rule
        table.add_row(
            render.plain(rule.name),
            rule.kind.value,
            render.plain(_condition(view)),
            render.plain(view.agent or "all"),
            rule.severity.value,
            render.plain(", ".join(view.endpoints) or "nobody"),
            f"{rule.cooldown_s} s",
        )
    return table


def _condition(view: RuleView) -> str:
    rule = view.rule
    parts = [rule.criterion] if rule.criterion else []
    if rule.threshold is not None:
        parts.append(f"{'below' if rule.kind is RuleKind.SCORE_BELOW else 'from'} {rule.threshold:g}")
    if rule.baseline and rule.rise is not None:
        parts.append(f"{rule.rise:.0%} above its own baseline")
    if rule.window_s is not None:
        parts.append(f"in {rule.window_s} s")
    if rule.min_samples is not None:
        parts.append(f"of at least {rule.min_samples} judged calls")
    return " ".join(parts)
