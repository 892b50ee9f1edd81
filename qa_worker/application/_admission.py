"""Choosing what a call is graded by, and making its evaluation: shared by every way in which a call arrives."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from qa_worker.application.ports import ANY, CallKey, Grading, RubricVersion, UnitOfWork, Wanted
from qa_worker.domain.call import CallId


def admit_all(
    uow: UnitOfWork, calls: Sequence[CallKey], *, grading: Grading, wanted: Wanted = ANY
) -> Sequence[uuid.UUID]:
    """The evaluation of each call under the rubric that holds for it: the one given, its agent's, its workspace's, ours."""
    versions = [(call, _version(uow, call, grading, wanted)) for call in calls]
    return uow.evaluations.ensure_all(versions, lane=wanted.lane, max_attempts=grading.max_attempts)


def evaluations_of(uow: UnitOfWork, call_ids: Sequence[CallId], *, grading: Grading) -> Mapping[CallId, uuid.UUID]:
    """The evaluation of each of these calls that was asked for last, made where there is none. Unknown calls have none."""
    if not call_ids:
        return {}
    known = uow.evaluations.of_calls(call_ids)
    keys = uow.calls.keys([call_id for call_id in call_ids if call_id not in known])
    made = admit_all(uow, keys, grading=grading) if keys else ()
    return {**known, **{key.id: evaluation_id for key, evaluation_id in zip(keys, made, strict=True)}}


def _version(uow: UnitOfWork, call: CallKey, grading: Grading, wanted: Wanted) -> RubricVersion:
    chosen = wanted.rubric or uow.rubrics.default_for(call.workspace, call.agent_id) or grading.rubric
    return uow.rubrics.version(call.workspace, chosen, grading.spec(chosen, wanted.judge))
