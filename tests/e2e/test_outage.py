"""The service goes down under a backlog and comes back: nothing is lost, nothing is doubled, little is sent into it."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import func, select

from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.messages import Queue
from tests.builders import a_call
from tests.e2e.conftest import System
from tests.e2e.workers import eventually
from tests.servers.behaviours import Answer, overloaded

pytestmark = [pytest.mark.services, pytest.mark.e2e]

CALLS = 80


def test_an_outage_costs_few_requests_and_no_call(system: System) -> None:
    system.workers.env |= {"QA_BREAKER_RECOVERY_S": "1", "QA_BREAKER_MAX_RECOVERY_S": "1"}
    system.api.default = overloaded()
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()
    accepted = system.submit(*(a_call(f"call-{number}") for number in range(CALLS)))
    # the first ones that fail open the gate, and two probes find it closed still
    eventually(lambda: system.workers.logs().count('"retry_at"') >= 7, what="the gate was opened and probed")
    waiting = system.states().count("pending") + system.states().count("queued")
    sent_while_down = system.api.served["overloaded"]

    system.api.default = Answer()
    views = system.done(accepted)

    assert waiting > 0
    assert sent_while_down < CALLS
    assert [view.verdict for view in views] == ["pass"] * CALLS
    results = Counter(attempt.result for view in views for attempt in view.attempts)
    assert results["done"] == CALLS
    assert results["retry"] == system.api.served["overloaded"]
    # Once where it met the open gate, and perhaps once more as the second of two probes: not again and again.
    with system.engine.connect() as connection:
        assert connection.execute(select(func.sum(evaluations.c.park_count))).scalar_one() < 2 * CALLS
