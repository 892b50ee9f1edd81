"""How suites look while they run and when they are over."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime

from rich.console import Console

from qa_worker.application.running import ProgressEvent, RunProgress, SuiteProgress, SuiteState
from qa_worker.cli.scenario_live import Board
from qa_worker.cli.scenario_render import brief, scenario_table, summary
from qa_worker.domain.evaluation import Finding
from qa_worker.domain.rubric import Severity
from qa_worker.domain.run import RunState
from qa_worker.domain.suite import SuiteResult
from tests.suites import Outcomes, a_run, a_suite

SUITE, PLAIN, SLOW = uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3)
MISSING = Finding("intent_completion", Severity.CRITICAL, "find_patient was never called")
RUDE = Finding("response_quality", Severity.MINOR, "rude", 4, "[red]So what?\x1b[2J")


def a_snapshot(plain: RunState, slow: RunState, *, message: str = "") -> SuiteProgress:
    runs = (
        RunProgress(PLAIN, "plain", 1, 1, plain, 4, 20),
        RunProgress(SLOW, "slow", 2, 1, slow, 6, 20, message=message),
    )
    return SuiteProgress(SUITE, "nightly", SuiteState.RUNNING, cancel_asked=False, runs=runs)


def shown(*items: SuiteProgress | ProgressEvent, terminal: bool = False, lines: bool = True) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None, force_interactive=terminal)
    with Board(console, lines=lines) as board:
        for item in items:
            board.take(item)
    return stream.getvalue()


def last_frame(screen: str) -> str:
    """What stands on a terminal in the end: Rich clears the lines of a frame before it draws the next one."""
    return " ".join(screen.rsplit("\x1b[2K", 1)[1].split())


def on_paper(result: SuiteResult, *, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(scenario_table(result, width=width))
        console.print(summary(result))
        console.print(brief(result))
    return captured.get()


def test_a_file_gets_one_line_for_each_run_that_ended() -> None:
    lines = shown(
        a_snapshot(RunState.RUNNING, RunState.PENDING),
        a_snapshot(RunState.PASSED, RunState.RUNNING),
        a_snapshot(RunState.PASSED, RunState.ERROR, message="the agent did not answer"),
    ).splitlines()

    assert lines == [
        "passed    plain #1 after 4 turns",
        "error     slow #2 after 6 turns: the agent did not answer",
    ]


def waits(run_id: uuid.UUID, name: str, reason: str = "http_500") -> RunProgress:
    until = datetime(2026, 11, 23, 9, 30, 5, tzinfo=UTC)
    return RunProgress(run_id, name, 1, 1, RunState.PENDING, 2, 20, reason, "[b]The agent is down.", until)


def test_what_runs_wait_for_is_told_once_for_each_reason() -> None:
    snapshot = SuiteProgress(SUITE, "nightly", SuiteState.RUNNING, False, (waits(PLAIN, "plain"), waits(SLOW, "slow")))  # noqa: FBT003 - no cancel

    assert shown(snapshot, snapshot) == (
        "waiting   plain #1 after 2 turns: http_500: [b]The agent is down. Next try 09:30:05 UTC.\n"
    )
    assert "0/2 2 pending; waiting: 2 http_500" in last_frame(shown(snapshot, terminal=True))


def test_who_goes_on_waits_no_more() -> None:
    snapshot = SuiteProgress(SUITE, "nightly", SuiteState.RUNNING, False, (waits(PLAIN, "plain"),))  # noqa: FBT003 - no cancel

    screen = shown(snapshot, ProgressEvent(PLAIN, SUITE, RunState.RUNNING, turns=3), terminal=True)

    assert "waiting" not in last_frame(screen).split("0/1")[1]


def test_a_report_says_what_is_waited_for() -> None:
    until = datetime(2026, 11, 23, 9, 30, 5, tzinfo=UTC)
    waiting = a_run("plain", RunState.PENDING, waits_for="http_500", waits_until=until, message="The agent is down.")
    paper = on_paper(a_suite(extra=[waiting, a_run("slow", RunState.PENDING)]), width=140)

    assert "pending   plain #1: waits (http_500): The agent is down. Next try 09:30:05 UTC." in paper
    assert "slow #1" not in paper


def test_what_passed_can_be_left_out() -> None:
    assert shown(a_snapshot(RunState.PASSED, RunState.FAILED), lines=False) == "failed    slow #2 after 6 turns\n"


def test_a_terminal_gets_a_bar_for_the_suite_and_one_for_each_run_under_way() -> None:
    screen = shown(
        a_snapshot(RunState.PASSED, RunState.RUNNING),
        ProgressEvent(SLOW, SUITE, RunState.RUNNING, turns=11),
        terminal=True,
    )

    assert "1/2 1 running, 1 passed" in last_frame(screen)
    assert "slow #2" in last_frame(screen)
    assert "11/40" in last_frame(screen)
    assert "plain #1" not in screen


def test_an_event_that_comes_late_changes_nothing() -> None:
    screen = shown(
        a_snapshot(RunState.RUNNING, RunState.RUNNING),
        ProgressEvent(SLOW, SUITE, RunState.RUNNING, turns=2),
        a_snapshot(RunState.PASSED, RunState.PASSED),
        ProgressEvent(SLOW, SUITE, RunState.RUNNING, turns=30),
        ProgressEvent(uuid.UUID(int=9), SUITE, RunState.RUNNING, turns=30),
        ProgressEvent(SLOW, uuid.UUID(int=9), RunState.RUNNING, turns=30),
        terminal=True,
    )

    assert "30/40" not in screen
    assert "2/2 2 passed" in last_frame(screen)


def test_a_reading_of_the_rows_does_not_take_turns_back() -> None:
    screen = shown(
        a_snapshot(RunState.RUNNING, RunState.RUNNING),
        ProgressEvent(SLOW, SUITE, RunState.RUNNING, turns=15),
        a_snapshot(RunState.RUNNING, RunState.RUNNING),
        terminal=True,
    )

    assert "15/40" in last_frame(screen)


def test_a_summary_has_every_rate_with_its_denominator() -> None:
    outcomes: Outcomes = {"plain": [True, True, True], "slow": [True, False, RunState.ERROR]}
    spoilt = a_run("plain", RunState.INVALID, repeat=1, attempt=0)

    text = on_paper(a_suite(outcomes, version="v13", extra=[spoilt]))

    for part in (
        "nightly: agent booking v13",
        "6: 4 passed, 1 failed, 1 error",
        "80% passed (4 of 5 measured; 95% interval 38% to 96%)",
        "pass^1 75% (2 scenarios), pass^3 100% (1 scenarios)",
        "1 of 2: slow",
        "1 of 6 runs; 1 attempts were spoilt by the simulated caller and played again",
        "error     slow #3: error",
        "nightly; 80% passed (4 of 5 measured; 95% interval 38% to 96%); runs: 4 passed, 1 failed, 1 error; 1 flaky",
    ):
        assert part in text.replace("\n", " "), part


def test_nothing_measured_is_no_rate() -> None:
    text = on_paper(a_suite({"plain": [RunState.CANCELLED]}))

    assert "nothing was measured" in text
    assert "0%" not in text


def test_the_worst_finding_of_each_scenario_comes_first_and_once() -> None:
    runs = [
        a_run(name, RunState.FAILED, repeat=repeat, findings=(RUDE, MISSING))
        for name in ("plain", "slow")
        for repeat in (1, 2)
    ]

    text = on_paper(a_suite(extra=runs), width=140)
    findings = text.split("Worst findings")[1].splitlines()[1:5]

    assert [line.strip("│ ").split(":")[0] for line in findings] == [
        "critical plain in 2 of 2 runs",
        "critical slow in 2 of 2 runs",
        "minor    plain in 2 of 2 runs",
        "minor    slow in 2 of 2 runs",
    ]
    assert '(run #1, turn 4) "[red]So what? [2J"' in findings[2]
    assert "\x1b" not in text
    assert text.splitlines()[4].split() == ["plain", "failed", "0/2", "-", "find_patient", "was", "never", "called"]


def test_a_long_reason_never_takes_the_room_of_the_other_columns() -> None:
    run = a_run("a-scenario-with-a-name", RunState.FAILED, findings=(Finding("x", Severity.MAJOR, "because " * 40),))

    rows = [line for line in on_paper(a_suite(extra=[run]), width=80).splitlines() if "0/1" in line]

    assert len(rows) == 1
    assert "a-scenario-with-a-name" in rows[0]
    assert len(rows[0].rstrip()) <= 80


def test_faults_of_the_tests_are_counted_and_the_same_ones_told_once() -> None:
    faults = ("[sighs] is not a marker", "[sighs] is not a marker")
    runs = [a_run("plain", RunState.PASSED, repeat=number, test_faults=faults) for number in (1, 2)]

    screen = on_paper(a_suite(extra=runs))

    assert "Test faults   4 in 2 runs; none counts against the agent" in screen
    assert "plain: [sighs] is not a marker (4 times)" in screen
    assert "Test faults" not in on_paper(a_suite({"plain": [True]}))
