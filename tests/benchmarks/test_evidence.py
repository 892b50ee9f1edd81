from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.convert import Labelled
from benchmarks.evidence import Score, compare, main, score, wilson
from qa_worker.domain.evidence.facts import Check


def test_precision_recall_and_accuracy_of_counted_calls() -> None:
    found = score([(True, True)] * 3 + [(True, False)] + [(False, True)] * 2 + [(False, False)] * 4)
    assert found == Score(hits=3, false_alarms=1, misses=2, rest=4)
    assert (found.precision, found.recall, found.accuracy) == (0.75, 0.6, 0.7)
    assert found.f1 == pytest.approx(2 / 3)


def test_where_nothing_is_found_precision_is_unknown_not_zero() -> None:
    assert math.isnan(score([(False, True)]).precision)
    assert score([(False, True)]).recall == 0.0


def test_wilsons_interval() -> None:
    low, high = wilson(14, 21)
    assert (round(low, 3), round(high, 3)) == (0.454, 0.828)
    assert wilson(0, 5)[0] == 0.0
    assert all(map(math.isnan, wilson(0, 0)))


def test_calls_are_compared_with_their_labels() -> None:
    call = {"role": "agent", "text": "", "tool_calls": [{"id": "1", "name": "find", "arguments": {}}]}
    turns = [call, {"role": "tool", "text": "ok", "tool_call_id": "1"}]
    agent = {"id": "a"}
    items = [
        Labelled({"id": "x", "agent": agent, "turns": turns * 2}, {"failure_modes": ["repetitive_tool_calls"]}),
        Labelled({"id": "y", "agent": agent, "turns": turns}, {"failure_modes": []}),
    ]
    found = compare(items, ("repetitive_tool_calls",), (Check.REPEATED_TOOL_CALL,))
    assert found == Score(hits=1, false_alarms=0, misses=0, rest=1)


def test_without_data_the_command_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err
