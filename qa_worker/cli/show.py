"""`qa-worker show CALL`: one call with its transcript, verdicts, findings, attempts and errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from qa_worker.application.queries import AttemptView, CallView, EvaluationView
from qa_worker.cli import render
from qa_worker.cli.console import errors, results
from qa_worker.cli.places import existing


def show(
    call: Annotated[str, typer.Argument(help="The call's id, yours or ours, or its external_id.")],
    workspace: Annotated[str, typer.Option(help="The workspace that the call belongs to.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    transcript: Annotated[bool, typer.Option(help="Print what was said, too.")] = True,
) -> None:
    """Show a call: what was said, every verdict, its findings, each attempt and what went wrong in it."""
    with existing() as client:
        found = client.queries.calls(workspace, call)
    if not found:
        errors.print(f"No call {render.plain(call)!r} is known in workspace {render.plain(workspace)!r}.")
        raise typer.Exit(2)
    for view in found:
        if as_json:
            print(json.dumps(_as_dict(view), ensure_ascii=False, default=str))  # noqa: T201 - what --json promises
        else:
            _show(view, transcript=transcript)


def _as_dict(view: CallView) -> dict[str, Any]:
    return {
        "call": view.ref,
        "call_id": str(view.id),
        "external_id": view.external_id,
        "workspace": view.workspace,
        "agent": view.agent,
        "agent_version": view.agent_version,
        "started_at": view.started_at,
        "received_at": view.received_at,
        "turns": list(view.transcript),
        "evaluations": [
            {**render.as_dict(evaluation), "attempts": [_attempt(a) for a in evaluation.attempts]}
            for evaluation in view.evaluations
        ],
    }


def _attempt(attempt: AttemptView) -> dict[str, Any]:
    return {name: getattr(attempt, name) for name in AttemptView.__slots__ if name != "usage"}


def _show(view: CallView, *, transcript: bool) -> None:
    title = f"{view.ref}  ({view.agent} {view.agent_version}, received {view.received_at:%Y-%m-%d %H:%M} UTC)"
    results.rule(render.plain(title), align="left")
    if transcript:
        _transcript(view.transcript)
    for evaluation in view.evaluations:
        _evaluation(evaluation)


def _transcript(turns: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for number, turn in enumerate(turns):
        at = "" if turn.get("start_s") is None else f"{turn['start_s']:.1f}s"
        calls = "".join(f"\n-> {c['name']}({json.dumps(c['arguments'])})" for c in turn.get("tool_calls", ()))
        table.add_row(str(number), at, turn["role"], render.plain((turn["text"] + calls).strip()).replace("  ", "\n"))
    results.print(table)


def _evaluation(view: EvaluationView) -> None:
    current = " (current)" if view.is_current else ""
    results.print()
    results.print(
        f"[bold]Evaluation[/bold]{current} by {view.judge} {view.model} under {render.plain(view.rubric)} {view.rubric_version}:",
        render.verdict_label(view),
        "" if view.overall is None else f"{view.overall} of 100",
        f"(median of {render.answers(view)} answers)" if render.answers(view) > 1 else "",
    )
    for score in view.scores:
        value = "n/a" if not score.applicable else "not measured" if score.score is None else str(score.score)
        results.print(f"  {score.criterion:<20} {value:>12}  {render.plain(score.explanation)}", highlight=False)
    if view.reasons:
        results.print("  reasons:", render.plain(", ".join(view.reasons)), highlight=False)
    if view.summary:
        results.print(" ", render.plain(view.summary), highlight=False)
    for finding in view.findings:
        where = "" if finding.turn is None else f" turn {finding.turn}"
        quote = f' "{finding.quote}"' if finding.quote else ""
        line = f"[{finding.severity.value}] {finding.criterion}{where} ({finding.source.value}): {finding.explanation}{quote}"
        results.print("  -", render.plain(line), highlight=False)
    if view.dropped_quotes:
        results.print(f"  {view.dropped_quotes} findings were dropped: nobody said what they quoted")
    _timing(view.evidence.get("timing"))
    _attempts(view)


def _timing(timing: Mapping[str, Any] | None) -> None:
    if timing is None:
        return
    latency = timing["response_latency"]
    parts = [f"{timing['agent_interruptions']} agent and {timing['caller_interruptions']} caller interruptions"]
    if latency is not None:
        parts.insert(
            0, f"answers after {latency['p50_s']:.1f} s (P50), {latency['p95_s']:.1f} s (P95, {latency['n']} answers)"
        )
    if timing["talk_share"] is not None:
        parts.append(f"agent talks {timing['talk_share']:.0%}")
    parts.append(f"{timing['dead_air_s']:.1f} s dead air")
    results.print("  timing:", ", ".join(parts), highlight=False)


def _attempts(view: EvaluationView) -> None:
    tokens = f"{view.usage.prompt_tokens} prompt and {view.usage.output_tokens} output tokens"
    results.print(
        f"  {len(view.attempts)} attempts, {tokens}, cost {render.dollars(view.cost_micro_usd)}", highlight=False
    )
    if not view.final:
        wait = f", not before {view.not_before:%H:%M:%S} UTC: {view.wait_reason}" if view.wait_reason else ""
        results.print(f"  {view.state.value}{wait}", highlight=False)
    for attempt in view.attempts:
        if attempt.error_kind is None:
            continue
        request = f", request {attempt.request_id}" if attempt.request_id else ""
        results.print(
            f"  attempt {attempt.attempt} {attempt.result}: {attempt.error_kind} {render.plain(attempt.error_code)}: "
            f"{render.plain(attempt.error_message)}{render.plain(request)}",
            highlight=False,
        )
        if attempt.raw:
            results.print("    raw answer:", render.plain(attempt.raw[:2000]), highlight=False)
