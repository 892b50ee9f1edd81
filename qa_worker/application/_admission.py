"""Choosing what a call is graded by, and making its evaluation: shared by every way in which a call arrives."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from qa_worker.application.ports import ANY, CallKey, Grading, RubricVersion, UnitOfWork, Wanted


def admit_all(
    uow: UnitOfWork, calls: Sequence[CallKey], *, grading: Grading, wanted: Wanted = ANY
) -> Sequence[uuid.UUID]:
    """The evaluation of each call under the rubric that holds for it: the one given, its agent's, its workspace's, ours."""
    versions = [(call, _version(uow, call, grading, wanted)) for call in calls]
    return uow.evaluations.ensure_all(versions, lane=wanted.lane, max_attempts=grading.max_attempts)


def _version(uow: UnitOfWork, call: CallKey, grading: Grading, wanted: Wanted) -> RubricVersion:
    chosen = wanted.rubric or uow.rubrics.default_for(call.workspace, call.agent_id) or grading.rubric
    return uow.rubrics.version(call.workspace, chosen, grading.spec(chosen, wanted.judge))
