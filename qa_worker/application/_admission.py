"""Choosing what a call is graded by, and making its evaluation: shared by every way in which a call arrives."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from qa_worker.application.ports import ANY, Asked, CallKey, Grading, RubricVersion, UnitOfWork, Wanted
from qa_worker.domain.call import CallId, WorkspaceId
from qa_worker.domain.outcome import Skipped
from qa_worker.domain.work import WorkState

OVER_SHARE = "its workspace has its share under way: it waits for its turn"


def admit_all(
    uow: UnitOfWork, calls: Sequence[CallKey], *, grading: Grading, wanted: Wanted = ANY
) -> Sequence[uuid.UUID]:
    """The evaluation of each call under the rubric that holds for it: the one given, its agent's, its workspace's, ours."""
    versions = [(call, _version(uow, call, grading, wanted)) for call in calls]
    return uow.evaluations.ensure_all(versions, lane=wanted.lane, max_attempts=grading.max_attempts)


def evaluations_of(uow: UnitOfWork, call_ids: Sequence[CallId], *, grading: Grading) -> Sequence[uuid.UUID]:
    """The evaluation of each of these calls that was asked for last, made where there is none. Unknown calls have none."""
    if not call_ids:
        return []
    known = uow.evaluations.of_calls(call_ids)
    keys = uow.calls.keys([call_id for call_id in call_ids if call_id not in known])
    return [*known.values(), *(admit_all(uow, keys, grading=grading) if keys else ())]


def to_begin(
    uow: UnitOfWork, about: Sequence[tuple[CallId, uuid.UUID | None]], *, grading: Grading, share: int
) -> Sequence[uuid.UUID | Skipped]:
    """The evaluations that messages from outside may begin by themselves, made where there are none.

    Such messages come in any number and in the order in which they were sent, whatever they stand before. So those of a
    workspace that has `share` live calls under way are put aside as soon as they are read: the dispatcher lets everybody
    take turns.
    """
    found = uow.evaluations.asked(about, share=share)
    unasked = {asked.key.id: asked.key for asked in found if asked is not None and asked.evaluation_id is None}
    named = {call_id for call_id, evaluation_id in about if evaluation_id is not None}
    keys = [key for call_id, key in unasked.items() if call_id not in named]
    made = dict(zip((key.id for key in keys), admit_all(uow, keys, grading=grading) if keys else (), strict=True))
    begun: Counter[WorkspaceId] = Counter()
    return [_begins(asked, made, begun) for asked in found]


def _begins(asked: Asked | None, made: Mapping[CallId, uuid.UUID], begun: Counter[WorkspaceId]) -> uuid.UUID | Skipped:
    """Whether there is room for this one besides what was `begun` for the others, and is not under way yet."""
    if asked is None:
        return Skipped("no such call")
    chosen = asked.evaluation_id or made.get(asked.key.id)
    if chosen is None:
        return Skipped("no such evaluation")
    if asked.state in (None, WorkState.PENDING):
        if begun[asked.key.workspace] >= asked.room:
            return Skipped(OVER_SHARE)
        begun[asked.key.workspace] += 1
    return chosen


def _version(uow: UnitOfWork, call: CallKey, grading: Grading, wanted: Wanted) -> RubricVersion:
    chosen = wanted.rubric or uow.rubrics.default_for(call.workspace, call.agent_id) or grading.rubric
    return uow.rubrics.version(call.workspace, chosen, grading.spec(chosen, wanted.judge))
