"""Calls come in, and what got stuck is found: the ways in which a message may be lost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from sqlalchemy import delete, update

from qa_worker.adapters.postgres.tables import calls, evaluations
from qa_worker.adapters.postgres.unit_of_work import PostgresUnitOfWork
from qa_worker.application.dispatch_work import dispatch_work
from qa_worker.application.ports import Rescued
from qa_worker.application.purse import Left
from qa_worker.application.rescue_stalled import rescue_stalled
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.messages import Message, Queue, TaskName
from tests.builders import a_call, a_grading
from tests.conftest import Outbox, UnitsOfWork
from tests.fakes import NoPace

pytestmark = pytest.mark.services


def _submit(uow: UnitsOfWork, *refs: str, limit: int = 10) -> list[Accepted]:
    made = [a_call(ref) for ref in refs]
    answers = submit_calls(made, workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=limit)
    return [answer for answer in answers if isinstance(answer, Accepted)]


def _rescue(uow: UnitsOfWork) -> Rescued:
    return rescue_stalled(uow=uow, grading=a_grading(), resend_after_s=0.01, in_flight_limit=99, waiting=lambda: 0)


def test_a_message_names_the_call_and_its_evaluation_by_id(uow: UnitsOfWork, outbox: Outbox) -> None:
    (accepted,) = _submit(uow, "one")

    ids: dict[str, str | list[str]] = {"call_id": str(accepted.call_id), "evaluation_id": str(accepted.evaluation_id)}
    assert outbox.sent == [Message(TaskName.EVALUATE_CALL, Queue.EVALUATE_CALL, ids)]


def test_a_broker_that_is_away_fails_no_submission(uow: UnitsOfWork, outbox: Outbox) -> None:
    def away(_batch: Sequence[Message]) -> None:
        raise StoreUnavailable("the broker can't be reached")

    def factory() -> PostgresUnitOfWork:
        return PostgresUnitOfWork(uow.engine, send=away, prompt_version="test")

    (answer,) = submit_calls([a_call("one")], workspace_name="w", uow=factory, grading=a_grading(), in_flight_limit=10)
    time.sleep(0.05)

    assert isinstance(answer, Accepted)
    assert _rescue(uow) == Rescued(resent=1)
    assert [message.kwargs["call_id"] for message in outbox.sent] == [str(answer.call_id)]


def test_a_row_that_a_backend_wrote_itself_is_admitted_and_then_dispatched(uow: UnitsOfWork, outbox: Outbox) -> None:
    _submit(uow, "one")
    outbox.sent.clear()
    with uow.engine.begin() as connection:
        connection.execute(delete(evaluations))
        connection.execute(update(calls).values(admitted_at=None))
    time.sleep(0.05)

    assert _rescue(uow) == Rescued(admitted=1)
    assert _rescue(uow) == Rescued()
    assert dispatch_work(uow=uow, pace=NoPace(), left=Left, in_flight_limit=10) == 1
    assert len(outbox.sent) == 1


def test_the_dispatcher_sends_no_more_than_there_is_room_for(uow: UnitsOfWork, outbox: Outbox) -> None:
    _submit(uow, *(f"call-{number}" for number in range(10)), limit=0)
    assert outbox.sent == []

    assert dispatch_work(uow=uow, pace=NoPace(), left=Left, in_flight_limit=4) == 4
    assert dispatch_work(uow=uow, pace=NoPace(), left=Left, in_flight_limit=4) == 0
    assert dispatch_work(uow=uow, pace=NoPace(), left=Left, in_flight_limit=6) == 2
    assert len(outbox.sent) == 6


def test_nothing_stuck_is_nothing_done(uow: UnitsOfWork, outbox: Outbox) -> None:
    assert (
        rescue_stalled(uow=uow, grading=a_grading(), resend_after_s=60, in_flight_limit=99, waiting=lambda: 0)
        == Rescued()
    )
    assert outbox.sent == []
