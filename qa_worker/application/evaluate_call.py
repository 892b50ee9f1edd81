"""Grade one call: claim its evaluation, gather evidence, ask the judge, record what came of it."""

from __future__ import annotations

import uuid

from qa_worker.application._admission import to_begin
from qa_worker.application._grading import (
    LEASE_LOST,
    Tools,
    crashes_are_recorded,
    evidence_of,
    no_judge,
    record,
    record_malformed,
    request_for,
)
from qa_worker.application.ports import Claimed, Malformed, UnitOfWork
from qa_worker.domain.call import CallId
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.outcome import Outcome, Skipped
from qa_worker.domain.work import why_not_claimed


def evaluate_call(*, call_id: CallId, tools: Tools, evaluation_id: uuid.UUID | None = None) -> Outcome:
    """Grade a call once. Two messages, two workers or a late zombie change nothing.

    Args:
        call_id: a stored call.
        tools: the ports.
        evaluation_id: which of its evaluations; None is the one under the rubric that holds for it, made if need be.

    Returns:
        `Done(verdict)`; `Skipped` where there was nothing to do; `RetryAt`, `Parked` or `Dead` as recorded in the row.

    Raises:
        StoreUnavailable: the database is out of reach, so that nothing could be written.

    """
    claimed = _claim(call_id, evaluation_id, tools)
    if isinstance(claimed, Skipped):
        return claimed
    tools.context.bind(evaluation_id=str(claimed.lease.work_id), attempt=claimed.lease.attempt)
    try:
        if isinstance(claimed, Malformed):
            return record_malformed(claimed, tools)
        tools.context.bind(workspace=claimed.workspace_name)
        with tools.leases.hold([claimed.lease]), crashes_are_recorded(claimed, tools) as attempt:
            evidence = evidence_of(claimed)
            judge = tools.judges.get(claimed.version.judge.kind)
            attempt.answer = judge.grade(request_for(claimed, evidence)) if judge else no_judge(claimed)
            return record(claimed, evidence, attempt.answer, tools)
    except LeaseLost:
        return Skipped(LEASE_LOST)


def _claim(call_id: CallId, evaluation_id: uuid.UUID | None, tools: Tools) -> Claimed | Malformed | Skipped:
    with tools.uow() as work:
        # What the dispatcher has sent is ours by one statement, and has been counted by the dispatcher.
        claimed = _claimed(work, call_id, evaluation_id, tools, only_sent=True) if evaluation_id else None
        chosen = claimed or to_begin(work, call_id, evaluation_id, grading=tools.grading, share=tools.share)
        if isinstance(chosen, uuid.UUID):
            chosen = _claimed(work, call_id, chosen, tools) or _not_free(work, chosen, tools)
        work.commit()
    return chosen


def _claimed(
    work: UnitOfWork, call_id: CallId, evaluation_id: uuid.UUID, tools: Tools, *, only_sent: bool = False
) -> Claimed | Malformed | None:
    claimed = work.evaluations.claim([evaluation_id], lease_s=tools.lease_s, of_call=call_id, only_sent=only_sent)
    return next(iter(claimed), None)


def _not_free(work: UnitOfWork, evaluation_id: uuid.UUID, tools: Tools) -> Skipped:
    status = work.evaluations.status(evaluation_id)
    return Skipped(why_not_claimed(status, now=tools.clock.now()) if status else "no such evaluation")
