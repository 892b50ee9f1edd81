"""Grade one call: claim its evaluation, gather evidence, ask the judge, record what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Nudge:
    """What a message says: look at this call, at the evaluation named, or else at the one asked for last."""

    call_id: CallId
    evaluation_id: uuid.UUID | None = None


Claim = Callable[[Nudge], Claimed | Malformed | Skipped]


def evaluate_call(
    *, call_id: CallId, tools: Tools, evaluation_id: uuid.UUID | None = None, claim: Claim | None = None
) -> Outcome:
    """Grade a call once. Two messages, two workers or a late zombie change nothing.

    Args:
        call_id: a stored call.
        tools: the ports.
        evaluation_id: which of its evaluations; None is the one under the rubric that holds for it, made if need be.
        claim: claims it, perhaps together with what other threads claim; None claims it alone.

    Returns:
        `Done(verdict)`; `Skipped` where there was nothing to do; `RetryAt`, `Parked` or `Dead` as recorded in the row.

    Raises:
        StoreUnavailable: the database is out of reach, so that nothing could be written.

    """
    nudge = Nudge(call_id, evaluation_id)
    claimed = claim(nudge) if claim else claim_calls([nudge], tools=tools)[0]
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


def claim_calls(nudges: Sequence[Nudge], *, tools: Tools) -> Sequence[Claimed | Malformed | Skipped]:
    """Claim what these messages ask for, in one transaction; an answer for each, in their order.

    Of two messages about one evaluation the first gets it. Raises: StoreUnavailable, with nothing claimed.
    """
    with tools.uow() as work:
        sent = _sent(work, nudges, tools)
        # Each is handed out once, of two messages to the first.
        answers = [sent.pop(nudge.evaluation_id, None) if nudge.evaluation_id else None for nudge in nudges]
        begun = iter(_begun(work, [nudge for nudge, had in zip(nudges, answers, strict=True) if had is None], tools))
        work.commit()
    return [next(begun) if answer is None else answer for answer in answers]


def _sent(work: UnitOfWork, nudges: Sequence[Nudge], tools: Tools) -> dict[uuid.UUID, Claimed | Malformed]:
    """What the dispatcher has sent is ours by one statement for all, and has been counted by the dispatcher."""
    named = {nudge.evaluation_id: nudge.call_id for nudge in nudges if nudge.evaluation_id is not None}
    if not named:
        return {}
    of_calls = list(named.values())
    taken = work.evaluations.claim(list(named), lease_s=tools.lease_s, of_calls=of_calls, only_sent=True)
    return {one.lease.work_id: one for one in taken}


def _begun(work: UnitOfWork, nudges: Sequence[Nudge], tools: Tools) -> list[Claimed | Malformed | Skipped]:
    """Claim what messages from outside ask for, as far as their workspaces' shares let them begin by themselves."""
    about = [(nudge.call_id, nudge.evaluation_id) for nudge in nudges]
    chosen = to_begin(work, about, grading=tools.grading, share=tools.share)
    wanted = [one for one in chosen if not isinstance(one, Skipped)]
    of_calls = [nudge.call_id for nudge in nudges]
    taken = work.evaluations.claim(wanted, lease_s=tools.lease_s, of_calls=of_calls) if wanted else []
    claimed = {one.lease.work_id: one for one in taken}
    return [
        one if isinstance(one, Skipped) else claimed.pop(one) if one in claimed else _not_free(work, one, tools)
        for one in chosen
    ]


def _not_free(work: UnitOfWork, evaluation_id: uuid.UUID, tools: Tools) -> Skipped:
    status = work.evaluations.status(evaluation_id)
    return Skipped(why_not_claimed(status, now=tools.clock.now()) if status else "no such evaluation")
