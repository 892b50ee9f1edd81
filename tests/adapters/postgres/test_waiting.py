"""What `qa-worker status` says of work that waits."""

from __future__ import annotations

import pytest
from sqlalchemy import func, text, update

from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application.submit_call import Accepted, submit_calls
from tests.builders import a_call, a_grading
from tests.conftest import UnitsOfWork

pytestmark = pytest.mark.services


def test_everything_that_waits_says_what_for_whether_it_is_due_or_not(uow: UnitsOfWork) -> None:
    made = [a_call(f"call-{number}") for number in range(6)]
    answers = submit_calls(made, workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=0)
    ids = [answer.evaluation_id for answer in answers if isinstance(answer, Accepted)]
    later, earlier = func.now() + text("'60 s'::interval"), func.now() - text("'60 s'::interval")
    with uow.engine.begin() as connection:
        for chosen, values in (
            (ids[0:1], {"wait_reason": "budget_spent", "not_before": later}),
            (ids[1:3], {"wait_reason": "breaker_open", "not_before": earlier}),
            (ids[3:4], {"lane": "batch"}),
        ):
            connection.execute(update(evaluations).where(evaluations.c.id.in_(chosen)).values(**values))

    backlog = PostgresQueries(uow.engine).backlog()

    assert backlog.waits_for == {"budget_spent": 1, "breaker_open": 2, "a message batch": 1, "their turn": 2}
    assert backlog.by_state == {"pending": 6}
