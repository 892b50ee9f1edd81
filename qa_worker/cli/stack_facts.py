"""What `qa-worker status` shows of what holds work back: what waits and why, Claude's breaker and limits, budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from qa_worker import bootstrap
from qa_worker.application.alert_queries import LetterFigures
from qa_worker.application.delivering import Endpoint
from qa_worker.application.limits import Brakes, Spending
from qa_worker.cli import render
from qa_worker.cli.console import results


def gateway_as_dict(gateway: bootstrap.GatewayStatus) -> dict[str, Any]:
    """The breaker; a bucket for each model and meter; what else slows each model."""
    buckets = [{"model": model, **asdict(one)} for model, meters in gateway.buckets.items() for one in meters]
    brakes = {model: asdict(one) for model, one in gateway.brakes.items()}
    return {"breaker": asdict(gateway.breaker), "buckets": buckets, "brakes": brakes}


def show_waiting(waits_for: Mapping[str, Mapping[str, int]]) -> None:
    """Of each kind of work how much waits for what."""
    if not waits_for:
        return
    table = Table("Waiting", "How many", "For")
    for kind, reasons in waits_for.items():
        for reason, count in sorted(reasons.items()):
            table.add_row(kind, f"{count:,}", render.plain(reason))
    results.print(table)


def show_gateway(gateway: bootstrap.GatewayStatus) -> None:
    """The breaker, and each model's limits a minute, with what is left of the bucket."""
    breaker = gateway.breaker
    until = f" for {breaker.open_for_s:.0f} s more" if breaker.open_for_s > 0 else ""
    alone = "" if breaker.shared else "; Redis is away, so that each process decides alone"
    results.print(f"Claude's breaker: {breaker.state}{until}, {breaker.share:.0%} of the rate{alone}", highlight=False)
    table = Table("Claude's limits", "Meter", "A minute", "Left now", "Source")
    for model, meters in gateway.buckets.items():
        for bucket in meters:
            table.add_row(
                render.plain(model), bucket.meter, f"{bucket.limit:,.0f}", f"{bucket.left:,.0f}", bucket.source
            )
    results.print(table)
    for model, brakes in gateway.brakes.items():
        _show_brakes(model, brakes)


def _show_brakes(model: str, brakes: Brakes) -> None:
    if brakes.load < 1:
        text = f"{model}: Claude says that it is overloaded: {brakes.load:.0%} of the rate for now"
        results.print(render.plain(text), style="yellow", highlight=False)
    if brakes.capped_for_s is not None:
        again = (
            f"asked again in {brakes.capped_for_s:.0f} s" if brakes.capped_for_s else "asked again with the next call"
        )
        text = f"{model}: the spend limit of the Claude account is reached ({again}). Raise it in the Claude console."
        results.print(render.plain(text), style="red", highlight=False)


def show_budgets(spending: Sequence[Spending]) -> None:
    """What all have spent, and whoever has a cap."""
    table = Table("Spent today (UTC)", "Spent", "Cap")
    for one in spending:
        if not one.workspace or one.cap is not None:
            cap = "none" if one.cap is None else render.dollars(one.cap)
            table.add_row(render.plain(one.workspace) or "all", render.dollars(one.spent), cap)
    results.print(table)


def show_alerting(letters: LetterFigures, off: Sequence[Endpoint]) -> None:
    """What is nowhere else to be seen where nobody can be alerted."""
    if letters.depth:
        hours = (letters.oldest_open_s or 0) / 3600
        results.print(f"Dead letters: {letters.depth:,} open, the oldest for {hours:.1f} h", style="yellow")
    for one in off:
        whose = f"{render.plain(one.ref.name)} ({render.plain(one.ref.workspace_name)})"
        results.print(f"Endpoint {whose} is switched off: {render.plain(one.disabled_reason)}", style="yellow")


def off_as_dict(endpoint: Endpoint) -> dict[str, str]:
    """Whose endpoint is switched off, and why."""
    return {
        "workspace": endpoint.ref.workspace_name,
        "name": endpoint.ref.name,
        "reason": endpoint.disabled_reason,
    }
