"""Results of suites for tests: a scenario is a list of its repeats, each passed, failed or another state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qa_worker.domain.run import RunState
from qa_worker.domain.suite import RunResult, SuiteResult


def a_run(scenario: str, state: RunState, *, repeat: int = 1, attempt: int = 1, **fields: Any) -> RunResult:
    """One run."""
    run_id = f"{scenario}-{repeat}-{attempt}"
    return RunResult(run_id, scenario, scenario.capitalize(), state, repeat=repeat, attempt=attempt, **fields)


Outcomes = Mapping[str, Sequence[bool | RunState]]


def a_suite(scenarios: Outcomes | None = None, *, version: str = "1", extra: Sequence[RunResult] = ()) -> SuiteResult:
    """`a_suite({"plain": [True, False], "slow": [RunState.ERROR]})`."""
    runs = [
        a_run(name, _state(outcome), repeat=number)
        for name, outcomes in (scenarios or {}).items()
        for number, outcome in enumerate(outcomes, start=1)
    ]
    return SuiteResult("nightly", "booking", version, (*runs, *extra))


def _state(outcome: bool | RunState) -> RunState:  # noqa: FBT001 - what became of a run
    if isinstance(outcome, RunState):
        return outcome
    return RunState.PASSED if outcome else RunState.FAILED
