"""`make run`: what a new user sees of scenarios."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli

pytestmark = [pytest.mark.services, pytest.mark.e2e]


def test_the_sample_scenarios_are_played_after_the_calls_and_the_planted_regression_is_found(bare: Cli) -> None:
    ran = bare("evaluate", "--samples")

    assert ran.code == 0
    assert ran.out.index("Evaluated   28 of 28") < ran.out.index("booking; 100% passed (10 of 10 measured")
    for agent in ("clinic", "support"):
        assert f"{agent}; 100% passed (10 of 10 measured" in ran.out
    assert "A planted regression (clinic without find_patient). REGRESSED" in ran.out
    assert "6 got worse, 0 better" in ran.out
    assert "failed    clinic (regressed): clinic-appointment #1" in ran.err


def test_as_json_there_are_the_verdicts_of_calls_and_nothing_else(bare: Cli) -> None:
    ran = bare("evaluate", "--samples", "--json")

    assert (ran.code, len(ran.lines)) == (0, 28)
    assert "scenario" not in ran.out
