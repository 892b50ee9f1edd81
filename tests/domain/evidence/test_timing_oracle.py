"""Our timing formulas against tau2's own figures, where its recordings are at hand (`test_timing.py` needs none)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.convert import tau2_voice_runs
from benchmarks.evidence import voice_figures

DATA = Path(__file__).parents[4] / "shared" / "data"
EXPECTED = DATA / "tau2_voice_timing" / "expected_metrics.json"


@pytest.mark.skipif(not EXPECTED.is_file(), reason="tau2's recordings are not part of the repository")
def test_latency_yield_and_interruptions_equal_those_of_tau2() -> None:
    expected = json.loads(EXPECTED.read_text("utf-8"))
    theirs = {**expected, **expected.pop("counts")}
    ours = voice_figures(tau2_voice_runs(DATA))
    assert len(ours) == 8
    assert {name: theirs[name] for name in ours} == pytest.approx(ours)
