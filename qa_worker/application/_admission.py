"""Choosing what a call is graded by, and making its evaluation: shared by every way in which a call arrives."""

from __future__ import annotations

import uuid

from qa_worker.application.ports import ANY, CallKey, Grading, UnitOfWork, Wanted


def admit(
    uow: UnitOfWork,
    call: CallKey,
    *,
    grading: Grading,
    wanted: Wanted = ANY,
) -> uuid.UUID:
    """The evaluation of `call` under the rubric that holds for it: the one given, its agent's, its workspace's, ours."""
    chosen = wanted.rubric or uow.rubrics.default_for(call.workspace, call.agent_id) or grading.rubric
    version = uow.rubrics.version(call.workspace, chosen, grading.spec(chosen, wanted.judge))
    return uow.evaluations.ensure(call, version, lane=wanted.lane, max_attempts=grading.max_attempts)
