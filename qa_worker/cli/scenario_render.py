"""How the result of a suite looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qa_worker.application.running import SuiteLine, SuiteState
from qa_worker.cli.render import cut, dollars, plain
from qa_worker.cli.scenario_live import COLOURS, counted
from qa_worker.domain.evaluation import Finding
from qa_worker.domain.rubric import Severity
from qa_worker.domain.run import FINAL, MEASURED, RunState
from qa_worker.domain.statistics import Rate
from qa_worker.domain.suite import RunResult, ScenarioResult, SuiteResult

_MOST_FINDINGS = 8
_MOST_UNMEASURED = 8
_MOST_TEST_FAULTS = 5
_MOST_NAMES = 10
_NAME_CHARS = 40
_OTHER_COLUMNS = 36
_WHY_CHARS = 12
_WORST_FIRST = (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR)


def scenario_table(result: SuiteResult, *, width: int) -> Table:
    """One row a scenario, on one line each in a terminal of `width` columns: how often it passed, and why not."""
    table = Table(box=box.SIMPLE_HEAD, title="Scenarios", title_justify="left", pad_edge=False)
    for heading in ("Scenario", "State"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Passed", "Score"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Why", no_wrap=True)
    # Cut here: Rich would take the room that a long text needs from the other columns.
    names = min(_NAME_CHARS, max((len(scenario.scenario) for scenario in result.scenarios), default=0))
    room = max(width - names - _OTHER_COLUMNS, _WHY_CHARS)
    for scenario in result.scenarios:
        table.add_row(
            plain(cut(scenario.scenario, names)),
            _state(scenario),
            f"{scenario.rate.successes}/{scenario.rate.n}",
            _score(scenario),
            plain(cut(_why(scenario), room)),
        )
    return table


def summary(result: SuiteResult) -> Panel:
    """The pass rate with its interval, pass^k, flaky scenarios, what was not measured, the worst findings."""
    version = f" {result.agent_version}" if result.agent_version else ""
    title = plain(f"{result.name}: agent {result.agent}{version}")
    return Panel(Group(*_lines(result)), title=title, title_align="left", expand=False)


def brief(result: SuiteResult) -> str:
    """The same in one line."""
    flaky = sum(scenario.flaky for scenario in result.scenarios)
    parts = [f"[bold]{plain(result.name)}[/bold]", share(result.rate), f"runs: {counted(result.states)}"]
    if flaky:
        parts.append(f"{flaky} flaky")
    return "; ".join(parts)


def share(rate: Rate) -> str:
    """A rate with its denominator and interval, or that nothing was measured."""
    if rate.value is None:
        return "nothing was measured"
    low, high = rate.interval.low, rate.interval.high
    return f"{rate.value:.0%} passed ({rate.successes} of {rate.n} measured; 95% interval {low:.0%} to {high:.0%})"


def _lines(result: SuiteResult) -> Iterator[str]:
    unmeasured = [run for run in result.counted if run.state not in MEASURED]
    yield f"[bold]Runs[/bold]          {len(result.counted)}: {counted(result.states)}{_took(result)}"
    yield f"[bold]Pass rate[/bold]     {share(result.rate)}"
    if len(result.pass_hat) > 1:
        kept = [(one.k, one.value, one.scenarios) for one in result.pass_hat if one.value is not None]
        values = ", ".join(f"pass^{k} {value:.0%} ({n} scenarios)" for k, value, n in (kept[0], kept[-1]))
        yield f"[bold]Reliability[/bold]   {values}"
    flaky = [scenario for scenario in result.scenarios if scenario.flaky]
    if flaky:
        yield f"[bold]Flaky[/bold]         {len(flaky)} of {len(result.scenarios)}: {plain(_names(flaky))}"
    yield f"[bold]Not measured[/bold]  {len(unmeasured)} of {len(result.counted)} runs{_spoilt(result)}"
    yield from _unmeasured([run for run in unmeasured if run.state in FINAL or run.waits_for])
    yield from _test_faults(result)
    yield f"[bold]Cost[/bold]          {_cost(result)}"
    yield from _findings(result)


def _unmeasured(runs: Sequence[RunResult]) -> Iterator[str]:
    """What ended without saying anything of the agent, or waits for its next attempt, by its reason."""
    reasons: dict[tuple[RunState, str], list[RunResult]] = {}
    for run in runs:
        reasons.setdefault((run.state, run.why), []).append(run)
    most_first = sorted(reasons.items(), key=lambda reason: -len(reason[1]))
    for (state, why), alike in most_first[:_MOST_UNMEASURED]:
        first = f"{alike[0].scenario} #{alike[0].repeat}"
        shown = f" (`scenarios show {alike[0].run_id[:8]}`)" if state in FINAL else ""
        others = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        times = [run.waits_until for run in alike if run.waits_until is not None]
        again = f" Next try {min(times):%H:%M:%S} UTC." if times else ""
        yield f"  {state.value:<9} {plain(first)}{others}: {plain(why)}{again}{shown}"
    yield from _more(len(reasons) - _MOST_UNMEASURED)


def _test_faults(result: SuiteResult) -> Iterator[str]:
    """What went wrong in the tests themselves: none of it is the agent's, and all of it makes them test less."""
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for run in result.runs:
        for fault in run.test_faults:
            groups.setdefault((run.scenario, fault), []).append(run)
    if not groups:
        return
    runs = len({run.run_id for alike in groups.values() for run in alike})
    times = sum(map(len, groups.values()))
    yield f"[bold]Test faults[/bold]   {times} in {runs} runs; none counts against the agent"
    most_first = sorted(groups.items(), key=lambda group: -len(group[1]))
    for (scenario, fault), alike in most_first[:_MOST_TEST_FAULTS]:
        often = f" ({len(alike)} times)" if len(alike) > 1 else ""
        yield f"  {plain(scenario)}: {plain(fault)}{often}"
    yield from _more(len(groups) - _MOST_TEST_FAULTS)


def _findings(result: SuiteResult) -> Iterator[str]:
    """The worst of each scenario first: the second one of the first scenario says less than the worst of the next."""
    groups = [group for scenario in result.scenarios for group in enumerate(_grouped(scenario))]
    if not groups:
        return
    yield "[bold]Worst findings[/bold]"
    groups.sort(key=lambda placed: (_rank(placed[1].finding), placed[0], -placed[1].runs))
    for _, group in groups[:_MOST_FINDINGS]:
        colour = "red" if group.finding.severity is Severity.CRITICAL else "yellow"
        yield f"  [{colour}]{group.finding.severity.value:<8}[/] {plain(_in_words(group))}"
    yield from _more(len(groups) - _MOST_FINDINGS)


@dataclass(frozen=True, slots=True)
class _Group:
    """What was found in some of a scenario's runs; `finding` is the first such one, in the run with this repeat."""

    scenario: ScenarioResult
    finding: Finding
    repeat: int
    runs: int


def _grouped(scenario: ScenarioResult) -> list[_Group]:
    """The findings of failed runs, the same ones together, the worst first."""
    found: dict[tuple[str, str, str], list[tuple[int, Finding]]] = {}
    for run in scenario.runs:
        for finding in run.findings if run.state is RunState.FAILED else ():
            found.setdefault((finding.criterion, finding.check, finding.explanation), []).append((run.repeat, finding))
    groups = [
        _Group(scenario, alike[0][1], alike[0][0], len({repeat for repeat, _ in alike})) for alike in found.values()
    ]
    return sorted(groups, key=lambda group: (_rank(group.finding), -group.runs))


def _in_words(group: _Group) -> str:
    finding, measured = group.finding, group.scenario.rate.n
    often = f" in {group.runs} of {measured} runs" if measured > 1 else ""
    where = "" if finding.turn is None else f" (run #{group.repeat}, turn {finding.turn})"
    quote = f' "{finding.quote}"' if finding.quote else ""
    return f"{group.scenario.scenario}{often}: {finding.explanation}{where}{quote}"


def _rank(finding: Finding) -> int:
    return _WORST_FIRST.index(finding.severity)


def _more(left: int) -> Iterator[str]:
    if left > 0:
        yield f"  and {left} more: `qa-worker scenarios report SUITE_RUN --json` has them all"


def _state(scenario: ScenarioResult) -> Text:
    if scenario.flaky:
        return Text("flaky", style="yellow")
    states = {run.state for run in scenario.runs}
    worst = next(state for state in reversed(RunState) if state in states)
    shown = RunState.FAILED if RunState.FAILED in states else worst
    return Text(shown.value, style=COLOURS[shown])


def _score(scenario: ScenarioResult) -> str:
    scores = [run.overall for run in scenario.runs if run.overall is not None and run.state in MEASURED]
    return f"{sum(scores) / len(scores):.0f}" if scores else "-"


def _why(scenario: ScenarioResult) -> str:
    worst = next((group.finding.explanation for group in _grouped(scenario)), "")
    return worst or next((run.why for run in scenario.runs if run.state is not RunState.PASSED), "")


def _names(scenarios: Sequence[ScenarioResult]) -> str:
    names = [scenario.scenario for scenario in scenarios[:_MOST_NAMES]]
    left = len(scenarios) - len(names)
    return ", ".join(names) + (f" and {left} more" if left else "")


def _spoilt(result: SuiteResult) -> str:
    return f"; {result.spoilt} attempts were spoilt by the simulated caller and played again" if result.spoilt else ""


def _took(result: SuiteResult) -> str:
    if result.started_at is None or result.completed_at is None:
        return ""
    return f", in {(result.completed_at - result.started_at).total_seconds():.1f} s"


def _cost(result: SuiteResult) -> str:
    known = sum(run.cost_micro_usd or 0 for run in result.runs)
    unknown = sum(run.cost_micro_usd is None for run in result.runs)
    return dollars(known) + (f", and {unknown} of {len(result.runs)} runs with an unknown price" if unknown else "")


def recent_table(suites: Sequence[SuiteLine]) -> Table:
    """Suite runs, the latest first."""
    table = Table(box=box.SIMPLE_HEAD, title="Suite runs", title_justify="left", pad_edge=False)
    for heading in ("Id", "Suite", "Agent", "State", "Begun (UTC)", "Runs"):
        table.add_column(heading, no_wrap=heading != "Runs")
    for suite in suites:
        runs = ", ".join(f"{number} {state.value}" for state, number in sorted(suite.runs.items()))
        agent = " ".join(filter(None, (suite.agent, suite.label)))
        style = "cyan" if suite.state is SuiteState.RUNNING else ""
        table.add_row(
            str(suite.id),
            plain(suite.name),
            plain(agent),
            Text(suite.state.value, style=style),
            f"{suite.created_at:%Y-%m-%d %H:%M}",
            runs,
        )
    return table
