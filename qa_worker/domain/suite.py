"""The result of a suite: what its runs say about the agent, and what could not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import cached_property

from qa_worker.domain.evaluation import Finding
from qa_worker.domain.rubric import Severity
from qa_worker.domain.run import FINAL, MEASURED, Completion, RunState
from qa_worker.domain.statistics import PassHat, Rate, flaky, pass_hat_k

_WORST_FIRST = (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR)


class ExitCode(IntEnum):
    """What a pipeline is told. 2 is bad input, which never gets as far as a result."""

    PASSED = 0
    AGENT_FAILED = 1
    BAD_INPUT = 2
    COULD_NOT_TEST = 3


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run as the report shows it.

    `repeat` counts from 1; `attempt` counts from 1 the runs of one repeat, of which all but the last were spoilt by the
    simulated caller. `scenario_version` is the scenario's fingerprint. Times are aware UTC, `overall` is 0-100. `test_faults`
    are what went wrong in the test itself, in the order in which it happened; none is held against the agent. `caller` is
    what played the caller (a model, or `script`), `judge` and `rubric_version` what it was graded by; empty where unknown.
    A run that waits for its next attempt says what for (`waits_for`, a code; `message` has it in words), and until when.
    """

    run_id: str
    scenario: str
    title: str
    state: RunState
    repeat: int = 1
    attempt: int = 1
    scenario_version: str = ""
    completion: Completion | None = None
    turns: int = 0
    overall: int | None = None
    findings: tuple[Finding, ...] = ()
    message: str = ""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cost_micro_usd: int | None = None
    test_faults: tuple[str, ...] = ()
    caller: str = ""
    judge: str = ""
    rubric_version: str = ""
    waits_for: str = ""
    waits_until: datetime | None = None

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end; None where one of the two isn't known."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()

    @property
    def why(self) -> str:
        """Why the run stands where it stands, in one line: its message, or else its worst findings."""
        worst = sorted(self.findings, key=lambda finding: _WORST_FIRST.index(finding.severity))
        said = "; ".join(finding.explanation for finding in worst[:3])
        if self.waits_for:
            return f"waits ({self.waits_for})" + (f": {self.message}" if self.message else "")
        return self.message or said or (self.completion.value if self.completion else self.state.value)


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """All repeats of one scenario: the last attempt of each, and how many attempts the caller spoilt before."""

    scenario: str
    title: str
    runs: tuple[RunResult, ...]
    spoilt: int

    @property
    def outcomes(self) -> Mapping[int, bool]:
        """Passed or not, by repeat; only what was measured."""
        return {run.repeat: run.state is RunState.PASSED for run in self.measured}

    @property
    def measured(self) -> tuple[RunResult, ...]:
        """The runs that say something of the agent."""
        return tuple(run for run in self.runs if run.state in MEASURED)

    @property
    def rate(self) -> Rate:
        """Passed of measured."""
        return Rate(sum(self.outcomes.values()), len(self.outcomes))

    @property
    def unmeasured(self) -> int:
        """Repeats that say nothing of the agent."""
        return len(self.runs) - len(self.outcomes)

    @property
    def flaky(self) -> bool:
        """Passed and failed both."""
        return flaky(self.outcomes.values())


@dataclass(frozen=True)
class SuiteResult:
    """A suite's runs, in any order, with what they were run against. `target` is the kind of the agent's player."""

    name: str
    agent: str
    agent_version: str
    runs: tuple[RunResult, ...]
    started_at: datetime | None = None
    completed_at: datetime | None = None
    target: str = ""

    @cached_property
    def scenarios(self) -> tuple[ScenarioResult, ...]:
        """The runs by scenario, in the order in which scenarios appear first."""
        ids = dict.fromkeys(run.scenario for run in self.runs)
        return tuple(_of_scenario([run for run in self.runs if run.scenario == name]) for name in ids)

    @cached_property
    def counted(self) -> tuple[RunResult, ...]:
        """The last attempt of each repeat."""
        return tuple(run for scenario in self.scenarios for run in scenario.runs)

    @property
    def states(self) -> Counter[RunState]:
        """How many repeats stand where."""
        return Counter(run.state for run in self.counted)

    @property
    def rate(self) -> Rate:
        """Passed of measured, over all repeats. Runs of one scenario resemble each other: the interval is for this suite."""
        return Rate(self.states[RunState.PASSED], sum(self.states[state] for state in MEASURED))

    @property
    def spoilt(self) -> int:
        """Attempts that the simulated caller spoilt and that were run again."""
        return sum(scenario.spoilt for scenario in self.scenarios)

    @property
    def pass_hat(self) -> tuple[PassHat, ...]:
        """pass^1 up to pass^k for the largest k that some scenario has as many measured runs for."""
        results = [(scenario.rate.successes, scenario.rate.n) for scenario in self.scenarios]
        most = max((n for _, n in results), default=0)
        return tuple(pass_hat_k(results, k) for k in range(1, most + 1))

    @property
    def callers(self) -> tuple[str, ...]:
        """What played the callers."""
        return tuple(sorted({run.caller for run in self.counted if run.caller}))

    @property
    def judges(self) -> tuple[str, ...]:
        """What graded the runs."""
        return tuple(sorted({run.judge for run in self.counted if run.judge}))

    @property
    def rubric_versions(self) -> tuple[str, ...]:
        """The fingerprints of all that the runs were graded by: rubrics, the judge's settings, its prompt."""
        return tuple(sorted({run.rubric_version for run in self.counted if run.rubric_version}))

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        return finished(self.runs)

    @property
    def exit_code(self) -> ExitCode:
        """A proven failure comes first; then anything that was not measured; nothing run at all is no pass."""
        if self.states[RunState.FAILED]:
            return ExitCode.AGENT_FAILED
        if not self.counted or any(run.state is not RunState.PASSED for run in self.counted):
            return ExitCode.COULD_NOT_TEST
        return ExitCode.PASSED


def _of_scenario(runs: Sequence[RunResult]) -> ScenarioResult:
    last: dict[int, RunResult] = {}
    for run in sorted(runs, key=lambda run: (run.repeat, run.attempt)):
        last[run.repeat] = run
    spoilt = sum(run.state is RunState.INVALID for run in runs if run is not last[run.repeat])
    return ScenarioResult(runs[0].scenario, runs[0].title, tuple(last.values()), spoilt)


def needs_another(runs: Iterable[RunResult], *, max_attempts: int) -> bool:
    """Whether a repeat is run again: its last attempt was the caller's fault, and attempts are left."""
    attempts = sorted(runs, key=lambda run: run.attempt)
    return bool(attempts) and attempts[-1].state is RunState.INVALID and len(attempts) < max_attempts


def finished(runs: Iterable[RunResult]) -> bool:
    """Whether nothing is left to be done."""
    return all(run.state in FINAL for run in runs)
