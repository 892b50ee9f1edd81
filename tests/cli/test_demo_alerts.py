"""What `make run` shows of alerts: true counts, on a stack of its own."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Cli

pytestmark = [pytest.mark.services, pytest.mark.e2e]


def _counts(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern!r} is not in\n{text}"
    return [int(group) for group in found.groups()]


def test_make_run_shows_delivery_death_and_replay_with_true_counts(bare: Cli) -> None:
    ran = bare("evaluate", "--samples")

    text = " ".join(ran.out.split())
    assert ran.code == 0, ran.err
    raised, calls = _counts(r"Alerts (\d+), of (\d+) failed calls", text)
    failed = len(re.findall(r" fail +\d", ran.out.split("Summary", maxsplit=1)[0]))
    assert calls == failed > 0
    assert 0 < raised <= calls
    assert _counts(r"ops: (\d+) delivered, (\d+) signatures verified", text) == [raised, raised]
    tries, died, replayed, arrived, verified = _counts(
        r"pager, down on purpose: (\d+) tries and (\d+) dead letters; it came up, and of (\d+) that were replayed "
        r"(\d+) arrived under their webhook-ids, (\d+) signatures verified",
        text,
    )
    assert [died, replayed, arrived, verified] == [raised] * 4
    assert tries >= 1
