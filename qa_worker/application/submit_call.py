"""A call comes in: it is stored, its evaluation is asked for, and a message says "look at this row"."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from qa_worker.application._admission import admit
from qa_worker.application._sending import messages_for
from qa_worker.application.ports import ANY, Grading, UnitOfWorkFactory, Wanted, WorkRef
from qa_worker.domain.call import Call, CallId
from qa_worker.domain.errors import CallConflict, Collided
from qa_worker.domain.work import Lane

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call that is stored. `created` is False where it had been handed over before."""

    ref: str
    call_id: CallId
    evaluation_id: uuid.UUID
    created: bool


def submit_calls(
    calls: Sequence[Call],
    *,
    workspace_name: str,
    uow: UnitOfWorkFactory,
    grading: Grading,
    in_flight_limit: int,
    wanted: Wanted = ANY,
) -> tuple[Accepted | CallConflict, ...]:
    """Store calls in one transaction, so that either all of them are accepted or none; answers come in their order.

    Handing over a call twice is one call and one evaluation. A call whose `ref` is known with another content is the
    only one left out, and the answer at its place says so. Messages are sent after the commit as far as the limit of
    work in flight leaves room; the dispatcher sends the rest.

    Raises:
        StoreUnavailable: the database is out of reach; nothing was accepted.

    """
    for _ in range(_TRIES - 1):
        with suppress(Collided):
            return _submit(calls, workspace_name, uow, grading, in_flight_limit, wanted)
    return _submit(calls, workspace_name, uow, grading, in_flight_limit, wanted)


def _submit(
    calls: Sequence[Call],
    workspace_name: str,
    uow: UnitOfWorkFactory,
    grading: Grading,
    in_flight_limit: int,
    wanted: Wanted,
) -> tuple[Accepted | CallConflict, ...]:
    answers: dict[int, Accepted | CallConflict] = {}
    sent: list[WorkRef] = []
    with uow() as work:
        under_way = work.evaluations.in_flight()
        # In one order for everybody: producers that hand over the same calls wait for each other, but never in a circle.
        for place in sorted(range(len(calls)), key=lambda place: (calls[place].agent.id, calls[place].ref)):
            call = calls[place]
            try:
                added = work.calls.add(call, workspace_name=workspace_name)
            except CallConflict as conflict:
                answers[place] = conflict
                continue
            evaluation_id = admit(work, added.key, grading=grading, wanted=wanted)
            # What can wait is left to the dispatcher, which keeps room for live calls.
            live = wanted.lane is Lane.LIVE
            if live and work.evaluations.mark_queued(evaluation_id, in_flight_limit=in_flight_limit):
                sent.append(WorkRef(evaluation_id, added.key.id, added.key.workspace, wanted.lane))
            answers[place] = Accepted(call.ref, added.key.id, evaluation_id, added.created)
        for message in messages_for(sent, under_way=under_way, in_flight_limit=in_flight_limit):
            work.nudge(message)
        work.commit()
    return tuple(answers[place] for place in range(len(calls)))
