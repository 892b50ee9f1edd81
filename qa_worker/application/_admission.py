"""Choosing what a call is graded by, and making its evaluation: shared by every way in which a call arrives."""

from __future__ import annotations

import uuid

from qa_worker.application.ports import Grading, NamedRubric, StoredCall, UnitOfWork
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane


def admit(
    uow: UnitOfWork,
    call: StoredCall,
    *,
    grading: Grading,
    rubric: NamedRubric | None = None,
    judge: JudgeKind | None = None,
    lane: Lane = Lane.LIVE,
) -> uuid.UUID:
    """The evaluation of `call` under the rubric that holds for it: the one given, its agent's, its workspace's, ours."""
    chosen = rubric or uow.rubrics.default_for(call.workspace, call.agent_id) or grading.rubric
    version = uow.rubrics.version(call.workspace, chosen, grading.spec(chosen, judge))
    return uow.evaluations.ensure(call, version, lane=lane, max_attempts=grading.max_attempts)
