"""How evaluations look on a terminal and as JSON. What a transcript says is escaped: it is data, never markup."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qa_worker.application.queries import EvaluationView
from qa_worker.domain.evaluation import Verdict
from qa_worker.domain.verdict import MEDIAN_OF
from qa_worker.domain.work import WorkState

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.NEEDS_REVIEW: "yellow",
    Verdict.NOT_EVALUATED: "magenta",
}
_MICRO = 1_000_000
_TOP_REASONS = 8
_HEADING_CHARS = 10
_REF_CHARS = 26
_VERDICT_CHARS = 13
_WIDE = 100
_BETWEEN_COLUMNS = 3
_WHY_CHARS = 12


def plain(text: str) -> str:
    """Text that somebody else wrote: no markup, no control characters that could move a terminal's cursor."""
    return escape("".join(c if c.isprintable() or c == " " else " " for c in text))


def plain_lines(text: str) -> str:
    """As `plain`, with its line breaks."""
    return "\n".join(map(plain, text.split("\n")))


def not_graded(view: EvaluationView) -> bool:
    """True where no judge's answer could be had: unfinished, given up on, or unreadable to the end."""
    if view.state is not WorkState.DONE:
        return True
    return any(reason.startswith("unreadable:") for reason in view.reasons)


def answers(view: EvaluationView) -> int:
    """Of how many answers of the judge the result is the median: 1 where one was enough."""
    counted = (reason.removeprefix(MEDIAN_OF) for reason in view.reasons if reason.startswith(MEDIAN_OF))
    return int(next(counted, 1))


def dollars(micro_usd: int | None) -> str:
    """Micro-dollars for people; an unknown price says so."""
    if micro_usd is None:
        return "unknown"
    return f"${micro_usd / _MICRO:.4f}" if micro_usd else "$0"


def verdict_label(view: EvaluationView) -> Text:
    """The verdict in its colour, or the state of work that isn't over."""
    if view.verdict is None:
        return Text(view.state.value, style="magenta")
    return Text(view.verdict.replace("_", " "), style=_COLOURS[Verdict(view.verdict)])


def verdict_table(views: Sequence[EvaluationView], *, width: int) -> Table:
    """One row a call, on one line each, in a terminal of `width` columns."""
    criteria = list(dict.fromkeys(score.criterion for view in views for score in view.scores))
    chars = _HEADING_CHARS if width >= _WIDE else _HEADING_CHARS // 2
    headings = [criterion.partition("_")[0][:chars] for criterion in criteria]
    refs = min(_REF_CHARS, max((len(view.ref) for view in views), default=0))
    table = Table(box=box.SIMPLE_HEAD, title="Verdicts", title_justify="left", pad_edge=False)
    for heading in ("Call", "Verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Score", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Why", no_wrap=True)
    # Cut here: Rich would take the room that a long text needs from the other columns.
    columns = [refs, _VERDICT_CHARS, *(len(heading) for heading in ("Score", *headings))]
    taken = sum(columns) + _BETWEEN_COLUMNS * (len(columns) + 1)
    room = max(width - taken, _WHY_CHARS)
    for view in views:
        scores = {score.criterion: score for score in view.scores}
        cells = [_score(scores.get(criterion)) for criterion in criteria]
        overall = "-" if view.overall is None else str(view.overall)
        why = plain(cut(_why(view), room))
        table.add_row(plain(cut(view.ref, refs)), verdict_label(view), overall, *cells, why)
    return table


def cut(text: str, chars: int) -> str:
    """The text with at most so many characters; an ellipsis where some are missing."""
    return text if len(text) <= chars else text[: chars - 1] + "…"


def summary(views: Sequence[EvaluationView], *, elapsed_s: float) -> Panel:
    """Evaluated of total, the pass rate with its denominator, cost, the most frequent reasons for failing."""
    verdicts = Counter(view.verdict or "unfinished" for view in views)
    graded = sum(not not_graded(view) for view in views)
    passed, failed = verdicts[Verdict.PASS], verdicts[Verdict.FAIL]
    decided = passed + failed
    rate = (
        f"{passed / decided:.0%} ({passed} of {decided} with a verdict of pass or fail)"
        if decided
        else "none: no call was decided"
    )
    judges = ", ".join(sorted({_judge(view) for view in views}))
    lines = [
        f"[bold]Evaluated[/bold]   {graded} of {len(views)} in {elapsed_s:.1f} s, by {plain(judges)}",
        f"[bold]Pass rate[/bold]   {rate}",
        f"[bold]Also[/bold]        {verdicts[Verdict.NEEDS_REVIEW]} need review, {verdicts[Verdict.NOT_EVALUATED]} not evaluated"
        + (f", {verdicts['unfinished']} unfinished" if verdicts["unfinished"] else ""),
        f"[bold]Cost[/bold]        {_total_cost(views)}",
    ]
    reasons = failure_reasons(views)
    if reasons:
        lines.append("[bold]Why calls failed[/bold] (calls with it)")
        lines += [f"  {count:>3}  {plain(reason)}" for reason, count in reasons]
    return Panel(Group(*lines), title="Summary", title_align="left", expand=False)


def failure_reasons(views: Sequence[EvaluationView]) -> list[tuple[str, int]]:
    """The most frequent kinds of findings among failed calls, each counted once a call."""
    counts: Counter[str] = Counter()
    for view in views:
        if view.verdict == Verdict.FAIL:
            kinds = {
                f"{f.criterion}: {f.check.replace('_', ' ') or f.severity.value + ' finding'}" for f in view.findings
            }
            counts.update(kinds)
    return counts.most_common(_TOP_REASONS)


def as_json_line(view: EvaluationView) -> str:
    """One evaluation as one line of JSON, for programs."""
    return json.dumps(as_dict(view), ensure_ascii=False, default=str)


def as_dict(view: EvaluationView) -> dict[str, Any]:
    """One evaluation as JSON values. Money is in dollars here, at the edge; null where the price isn't known."""
    return {
        "call": view.ref,
        "call_id": str(view.call_id),
        "external_id": view.external_id,
        "evaluation_id": str(view.id),
        "agent": view.agent,
        "judge": view.judge,
        "model": view.model or None,
        "rubric": view.rubric,
        "rubric_version": view.rubric_version,
        "state": view.state.value,
        "verdict": view.verdict,
        "overall": view.overall,
        "scores": {s.criterion: {"score": s.score, "level": s.level, "applicable": s.applicable} for s in view.scores},
        "reasons": list(view.reasons),
        "summary": view.summary,
        "findings": [asdict(finding) for finding in view.findings],
        "dropped_quotes": view.dropped_quotes,
        "answers": answers(view),
        "timing": view.evidence.get("timing"),
        "usage": asdict(view.usage),
        "cost_usd": None if view.cost_micro_usd is None else view.cost_micro_usd / _MICRO,
        "attempts": len(view.attempts),
        "error": _error(view),
        "evaluated_at": None if view.evaluated_at is None else view.evaluated_at.isoformat(),
    }


def _error(view: EvaluationView) -> dict[str, Any] | None:
    if view.error_kind is None:
        return None
    request_id = view.attempts[-1].request_id if view.attempts else None
    return {"kind": view.error_kind, "code": view.error_code, "message": view.error_message, "request_id": request_id}


def _score(score: Any) -> str:
    if score is None or not score.applicable:
        return "n/a" if score is not None else "-"
    return "?" if score.score is None else str(score.score)


def _why(view: EvaluationView) -> str:
    if view.error_kind is not None and view.verdict != Verdict.PASS:
        return f"{view.error_code}: {view.error_message}"
    if view.verdict == Verdict.PASS:
        return ""
    if view.verdict == Verdict.FAIL and view.findings:
        worst = min(view.findings, key=lambda f: ("critical", "major", "minor").index(f.severity.value))
        return f"{worst.check.replace('_', ' ')}: {worst.explanation}" if worst.check else worst.explanation
    return ", ".join(reason for reason in view.reasons if not reason.startswith(MEDIAN_OF)).replace("_", " ")


def _judge(view: EvaluationView) -> str:
    return f"{view.judge} ({view.model})" if view.model else f"{view.judge} (evidence alone)"


def _total_cost(views: Sequence[EvaluationView]) -> str:
    known = sum(view.cost_micro_usd or 0 for view in views)
    unknown = sum(view.cost_micro_usd is None for view in views)
    return dollars(known) + (f", and {unknown} calls whose model has no known price" if unknown else "")
