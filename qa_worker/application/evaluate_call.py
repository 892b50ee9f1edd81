"""Grade one call: claim its evaluation, gather evidence, ask the judge, record what came of it."""

from __future__ import annotations

import uuid

from qa_worker.application._admission import evaluations_of
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
from qa_worker.application.ports import Claimed, Malformed
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
        chosen = evaluation_id or next(iter(evaluations_of(work, [call_id], grading=tools.grading)), None)
        if chosen is None:
            return Skipped("no such call")
        claimed = work.evaluations.claim([chosen], lease_s=tools.lease_s, of_call=call_id)
        status = None if claimed else work.evaluations.status(chosen)
        work.commit()
    if claimed:
        return claimed[0]
    return Skipped(why_not_claimed(status, now=tools.clock.now()) if status else "no such evaluation")
