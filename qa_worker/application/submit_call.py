"""A call comes in: it is stored, its evaluation is asked for, and a message says "look at this row"."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from qa_worker.application._admission import admit_all
from qa_worker.application._sending import messages_for
from qa_worker.application.ports import ANY, Added, Grading, UnitOfWorkFactory, Wanted, WorkRef
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
    with uow() as work:
        added = work.calls.add_all(calls, workspace_name=workspace_name)
        keys = [one.key for one in added if isinstance(one, Added)]
        ids = admit_all(work, keys, grading=grading, wanted=wanted)
        # What can wait is left to the dispatcher, which keeps room for live calls.
        if wanted.lane is Lane.LIVE:
            under_way = work.evaluations.in_flight()
            queued = work.evaluations.queue_new(ids, in_flight_limit=in_flight_limit)
            sent = [
                WorkRef(evaluation_id, key.id, key.workspace, wanted.lane)
                for key, evaluation_id in zip(keys, ids, strict=True)
                if evaluation_id in queued
            ]
            for message in messages_for(sent, under_way=under_way, in_flight_limit=in_flight_limit):
                work.nudge(message)
        work.commit()
    made = iter(ids)
    return tuple(
        Accepted(call.ref, one.key.id, next(made), one.created) if isinstance(one, Added) else one
        for call, one in zip(calls, added, strict=True)
    )
