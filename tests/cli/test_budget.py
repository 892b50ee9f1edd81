"""`qa-worker budget` as a user runs it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.services


def test_caps_are_set_shown_and_taken_away_for_a_workspace_and_for_all_together(cli: Cli) -> None:
    assert "workspace 'acme' may spend $5.00 a day" in cli("budget", "set", "5", "--workspace", "acme").out
    assert "all workspaces together may spend $50.00 a day" in cli("budget", "set", "50", "--overall").out
    shown = cli("budget", "show", QA_DAILY_BUDGET_USD="7").out
    assert "$50.00" in shown
    assert "$5.00" in shown

    assert cli("budget", "clear", "--overall").code == 0
    assert cli("budget", "clear", "--workspace", "acme").code == 0

    shown = cli("budget", "show", QA_DAILY_BUDGET_USD="7").out
    assert "$7.00" in shown
    assert "$50.00" not in shown
    assert "$5.00" not in shown


def test_one_workspace_and_all_together_is_no_budget(cli: Cli) -> None:
    ran = cli("budget", "set", "5", "--overall", "--workspace", "acme")

    assert ran.code == 2
    assert "--overall" in ran.err
