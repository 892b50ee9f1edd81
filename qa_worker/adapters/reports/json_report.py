"""A suite's result, a run, and a comparison, as JSON documents with a version of their own."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import count
from typing import Any

from qa_worker.application.running import RunView
from qa_worker.domain.comparison import Comparison, readable
from qa_worker.domain.evaluation import Finding
from qa_worker.domain.playback import played_to_json
from qa_worker.domain.run import RunState
from qa_worker.domain.statistics import Interval, Rate
from qa_worker.domain.suite import RunResult, ScenarioResult, SuiteResult

RUN_SCHEMA = "voicenoob-qa/run/1"
SUITE_SCHEMA = "voicenoob-qa/suite-report/1"
COMPARISON_SCHEMA = "voicenoob-qa/comparison/1"


def suite_json(suite: SuiteResult) -> str:
    """Every rate has its denominator and its interval; null stands for what was not measured."""
    document = {
        "schema": SUITE_SCHEMA,
        "suite": suite.name,
        "agent": {"id": suite.agent, "version": suite.agent_version},
        "target": suite.target,
        "callers": list(suite.callers),
        "judges": list(suite.judges),
        "rubric_versions": list(suite.rubric_versions),
        "started_at": _time(suite.started_at),
        "completed_at": _time(suite.completed_at),
        "exit_code": int(suite.exit_code),
        "pass_rate": _rate(suite.rate),
        "pass_hat": [{"k": p.k, "value": _rounded(p.value), "scenarios": p.scenarios} for p in suite.pass_hat],
        "states": {state.value: suite.states[state] for state in RunState},
        "attempts_spoilt_by_the_caller": suite.spoilt,
        "test_faults": sum(len(run.test_faults) for run in suite.runs),
        "scenarios": [_scenario(scenario) for scenario in suite.scenarios],
    }
    return _text(document)


def run_json(view: RunView) -> str:
    """One run with its conversation. `place` is the turn's number in the transcript that judge and findings speak of.

    What stands in no transcript (a noise, an agent's silence) has none. `line` is the caller's line as it was written.
    """
    places = count()
    document = {
        "schema": RUN_SCHEMA,
        "suite_run": str(view.suite_run_id),
        "suite": view.suite,
        "agent": {"id": view.agent, "version": view.agent_version},
        "scenario": view.run.scenario,
        **_run(view.run),
        "conversation": [{"place": next(places) if row.said else None, **played_to_json(row)} for row in view.turns],
    }
    return _text(document)


def comparison_json(comparison: Comparison) -> str:
    """The verdict, the figures it rests on, and the same in sentences."""
    pairs = comparison.pairs
    document = {
        "schema": COMPARISON_SCHEMA,
        "verdict": comparison.verdict.value,
        "exit_code": int(comparison.exit_code),
        "before": {"version": comparison.before, "pass_rate": _rate(pairs.before)},
        "now": {"version": comparison.now, "pass_rate": _rate(pairs.after)},
        "pairs": {"n": pairs.n, "worse": pairs.worse, "better": pairs.better},
        "mcnemar_exact_p": _rounded(pairs.p_value),
        "difference_interval_95": _interval(comparison.difference),
        "scenarios": [
            {
                "scenario": scenario.scenario,
                "before": _rate(scenario.before),
                "now": _rate(scenario.now),
                "fisher_exact_p_holm": _rounded(scenario.adjusted_p),
                "shown": scenario.change.value if scenario.change else None,
            }
            for scenario in comparison.scenarios
        ],
        "not_compared": [{"scenario": name, "reason": reason} for name, reason in comparison.left_out],
        "repeats_without_partner": comparison.unpaired,
        "not_tested": list(comparison.untested),
        "warnings": list(comparison.warnings),
        "text": list(readable(comparison)),
    }
    return _text(document)


def _scenario(scenario: ScenarioResult) -> dict[str, Any]:
    return {
        "scenario": scenario.scenario,
        "title": scenario.title,
        "pass_rate": _rate(scenario.rate),
        "flaky": scenario.flaky,
        "not_measured": scenario.unmeasured,
        "attempts_spoilt_by_the_caller": scenario.spoilt,
        "runs": [_run(run) for run in scenario.runs],
    }


def _run(run: RunResult) -> dict[str, Any]:
    return {
        "run": run.run_id,
        "repeat": run.repeat,
        "attempt": run.attempt,
        "state": run.state.value,
        "completion": run.completion.value if run.completion else None,
        "turns": run.turns,
        "overall": run.overall,
        "message": run.message,
        "waits_for": run.waits_for,
        "waits_until": _time(run.waits_until),
        "started_at": _time(run.started_at),
        "completed_at": _time(run.completed_at),
        "cost_usd": None if run.cost_micro_usd is None else run.cost_micro_usd / 1_000_000,
        "caller": run.caller,
        "judge": run.judge,
        "rubric_version": run.rubric_version,
        "findings": [_finding(finding) for finding in run.findings],
        "test_faults": list(run.test_faults),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "criterion": finding.criterion,
        "severity": finding.severity.value,
        "explanation": finding.explanation,
        "turn": finding.turn,
        "quote": finding.quote,
        "source": finding.source.value,
        "check": finding.check,
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {
        "value": _rounded(rate.value),
        "passed": rate.successes,
        "measured": rate.n,
        "interval_95": _interval(rate.interval),
    }


def _interval(interval: Interval) -> list[float | None]:
    return [_rounded(interval.low), _rounded(interval.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
