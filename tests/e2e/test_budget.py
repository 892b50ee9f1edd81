"""A spent budget holds back its workspace alone, visibly, and a raised one lets it go on at once."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application.ports import Wanted
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.rubric import JudgeKind
from qa_worker.messages import Queue
from tests.builders import a_call
from tests.e2e.conftest import System
from tests.e2e.workers import eventually

pytestmark = [pytest.mark.services, pytest.mark.e2e]


def test_who_has_spent_his_budget_waits_alone_and_goes_on_when_it_is_raised(system: System) -> None:
    system.client.set_budget("poor", 0)
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()
    asked = [a_call(f"call-{number}") for number in range(5)]
    answers = system.client.submit(asked, workspace="poor", wanted=Wanted(judge=JudgeKind.CLAUDE))
    poor = [answer for answer in answers if isinstance(answer, Accepted)]
    first, second = (system.submit(*(a_call(f"{turn}-{number}") for number in range(3))) for turn in ("1", "2"))

    assert [view.verdict for view in system.done(first)] == ["pass"] * 3
    eventually(
        lambda: system.client.to_do().waits_for == {"evaluations": {"budget_spent": 5}},
        what="the others wait for the budget",
    )
    with system.engine.begin() as connection:
        connection.execute(update(evaluations).values(not_before=func.now()))
    third = system.submit(*(a_call(f"3-{number}") for number in range(3)))
    assert [view.verdict for view in system.done([*second, *third])] == ["pass"] * 6
    assert system.client.to_do().waits_for == {"evaluations": {"budget_spent": 5}}
    with system.engine.connect() as connection:
        assert connection.execute(select(func.max(evaluations.c.park_count))).scalar_one() == 1, "it was sent once"

    system.client.set_budget("poor", 10**6)

    assert [view.verdict for view in system.done(poor)] == ["pass"] * 5
