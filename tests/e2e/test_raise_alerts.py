"""A failed call becomes an alert: real workers, real broker, real database."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from qa_worker.adapters.postgres.tables import alert_matches, alerts
from qa_worker.domain.call import Expected, workspace_id
from qa_worker.domain.rubric import JudgeKind
from qa_worker.messages import Queue
from tests.alerting import add_rule
from tests.builders import a_call
from tests.conftest import UnitsOfWork
from tests.e2e.conftest import System
from tests.e2e.workers import eventually

pytestmark = [pytest.mark.services, pytest.mark.e2e]


def _raised(system: System) -> int:
    with system.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(alerts)).scalar_one())


def _submit_a_call_that_fails(system: System, uow: UnitsOfWork) -> None:
    expected = Expected(required_tools=("book_appointment",))
    system.submit(a_call("first"), judge=JudgeKind.RULES)  # makes the workspace
    add_rule(uow, workspace=workspace_id("default"))
    system.submit(a_call("one", expected=expected), judge=JudgeKind.RULES)


def test_a_failed_call_is_an_alert_without_any_beat(system: System, uow: UnitsOfWork) -> None:
    _submit_a_call_that_fails(system, uow)
    system.workers.start(Queue.SEND_ALERT)
    system.workers.start(Queue.EVALUATE_CALL)

    eventually(lambda: _raised(system) == 1, what="the alert is raised", within_s=60)
    with system.engine.connect() as connection:
        assert connection.execute(select(alerts.c.event)).scalars().all() == ["evaluation.failed"]


def test_where_no_nudge_arrives_beat_raises_the_alert(system: System, uow: UnitsOfWork) -> None:
    _submit_a_call_that_fails(system, uow)
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()

    eventually(lambda: _raised(system) == 1, what="the alert is raised", within_s=60)
    with system.engine.connect() as connection:
        assert connection.execute(select(alert_matches.c.alert_id.is_not(None))).scalars().all() == [True]
