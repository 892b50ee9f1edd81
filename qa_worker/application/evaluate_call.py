"""Grade one call: claim its evaluation, gather evidence, ask the judge, record what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from qa_worker.application._admission import admit
from qa_worker.application.judging import Judge, JudgeAnswer, JudgeRequest
from qa_worker.application.ports import (
    AttemptRecord,
    Clock,
    Grading,
    Jitter,
    Leases,
    LogContext,
    RubricVersion,
    StoredCall,
    UnitOfWorkFactory,
)
from qa_worker.domain import rules
from qa_worker.domain.call import CallId
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.evaluation import Assessment, Evaluation, Usage
from qa_worker.domain.evidence.collect import collect
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Outcome, Parked, RetryAt, Skipped
from qa_worker.domain.pricing import cost_micro_usd
from qa_worker.domain.retry import RetryPolicy, next_step
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.verdict import could_not_read, decide
from qa_worker.domain.work import Lease, why_not_claimed

LEASE_LOST = "lease lost: another worker has this call by now"


@dataclass(frozen=True, slots=True)
class Tools:
    """What grading a call needs of the world."""

    uow: UnitOfWorkFactory
    leases: Leases
    context: LogContext
    judges: dict[JudgeKind, Judge]
    clock: Clock
    jitter: Jitter
    policy: RetryPolicy
    grading: Grading
    lease_s: float


@dataclass(frozen=True, slots=True)
class _Claimed:
    lease: Lease
    stored: StoredCall
    version: RubricVersion


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
    call = claimed.stored.call
    try:
        with tools.leases.hold(claimed.lease), _crashes_are_recorded(claimed.lease, tools):
            evidence = collect(
                call.transcript, agent=call.agent, expected=call.expected, checks=claimed.version.rubric.checks
            )
            answer = _ask(claimed, evidence, tools)
            return _record(claimed, evidence, answer, tools)
    except LeaseLost:
        return Skipped(LEASE_LOST)


def _claim(call_id: CallId, evaluation_id: uuid.UUID | None, tools: Tools) -> _Claimed | Skipped:
    with tools.uow() as work:
        stored = work.calls.get(call_id)
        if stored is None:
            return Skipped("no such call")
        chosen = evaluation_id or admit(work, stored, grading=tools.grading)
        version = work.evaluations.rubric_version(chosen)
        if version is None:
            return Skipped("no such evaluation")
        lease = work.evaluations.claim(chosen, lease_s=tools.lease_s)
        if lease is None:
            status = work.evaluations.status(chosen)
            work.commit()
            return Skipped(why_not_claimed(status, now=tools.clock.now()) if status else "no such evaluation")
        work.commit()
    tools.context.bind(workspace=stored.workspace_name, evaluation_id=str(chosen), attempt=lease.attempt)
    return _Claimed(lease, stored, version)


def _ask(claimed: _Claimed, evidence: Evidence, tools: Tools) -> JudgeAnswer:
    spec = claimed.version.judge
    judge = tools.judges.get(spec.kind)
    if judge is None:
        failure = Failure(
            FailureKind.REJECTED,
            "no_judge",
            f"This worker has no judge '{spec.kind.value}'. For Claude, set ANTHROPIC_API_KEY where the worker runs.",
        )
        return JudgeAnswer(failure, Usage(), spec.model, None, "")
    request = JudgeRequest(
        call=claimed.stored.call,
        rubric=claimed.version.rubric,
        evidence=evidence,
        spec=spec,
        key=str(claimed.stored.workspace),
    )
    return judge.grade(request)


def _record(claimed: _Claimed, evidence: Evidence, answer: JudgeAnswer, tools: Tools) -> Outcome:
    match answer.result:
        case Assessment():
            return _finish(claimed, evidence, _decided(claimed, evidence, answer.result), answer, None, tools)
        case Failure():
            return _failed(claimed, evidence, answer, answer.result, tools)
        case _:
            assert_never(answer.result)


def _decided(claimed: _Claimed, evidence: Evidence, assessment: Assessment) -> Evaluation:
    rubric = claimed.version.rubric
    # The rules judge reports every fact as a finding already.
    by_rules = claimed.version.judge.kind is JudgeKind.RULES
    proven = () if by_rules else rules.established(evidence, rubric=rubric)
    return decide(assessment, rubric=rubric, transcript=claimed.stored.call.transcript, established=proven)


def _failed(claimed: _Claimed, evidence: Evidence, answer: JudgeAnswer, failure: Failure, tools: Tools) -> Outcome:
    now = tools.clock.now()
    step = next_step(tools.policy, failure, attempt=claimed.lease.attempt, now=now, jitter=tools.jitter.fraction())
    if isinstance(step, Dead) and failure.kind is FailureKind.UNREADABLE:
        rubric = claimed.version.rubric
        unread = could_not_read(
            rubric=rubric, code=failure.code, established=rules.established(evidence, rubric=rubric)
        )
        return _finish(claimed, evidence, unread, answer, failure, tools)
    return _postpone(claimed.lease, step, evidence, answer, failure, now, tools)


def _finish(
    claimed: _Claimed,
    evidence: Evidence,
    evaluation: Evaluation,
    answer: JudgeAnswer,
    failure: Failure | None,
    tools: Tools,
) -> Done:
    record = _attempt("done", answer, failure, tools.clock.now())
    with tools.uow() as work:
        work.evaluations.finish(claimed.lease, evaluation, evidence, record)
        work.commit()
    return Done(evaluation.verdict.value)


def _postpone(
    lease: Lease,
    step: RetryAt | Parked | Dead,
    evidence: Evidence | None,
    answer: JudgeAnswer,
    failure: Failure,
    now: datetime,
    tools: Tools,
) -> RetryAt | Parked | Dead:
    with tools.uow() as work:
        match step:
            case RetryAt(when, reason):
                record = _attempt("retry", answer, failure, now)
                work.evaluations.wait(lease, until=when, reason=reason, counts=True, record=record)
            case Parked(until, reason):
                record = _attempt("parked", answer, failure, now)
                work.evaluations.wait(lease, until=until, reason=reason, counts=False, record=record)
            case Dead():
                work.evaluations.bury(lease, evidence=evidence, record=_attempt("dead", answer, failure, now))
            case _:
                assert_never(step)
        work.commit()
    return step


def _attempt(result: str, answer: JudgeAnswer, failure: Failure | None, now: datetime) -> AttemptRecord:
    by_model = bool(answer.model)
    return AttemptRecord(
        result=result,
        ended_at=now,
        usage=answer.usage,
        model=answer.model,
        cost_micro_usd=cost_micro_usd(answer.usage, model=answer.model, at=now.date()) if by_model else 0,
        request_id=failure.request_id or answer.request_id if failure else answer.request_id,
        failure=failure,
        raw=answer.raw,
    )


@contextmanager
def _crashes_are_recorded(lease: Lease, tools: Tools) -> Iterator[None]:
    """A fault of our own is written to the row before it is raised: the attempt counts and the row shows why."""
    try:
        yield
    except (LeaseLost, StoreUnavailable):
        raise
    except Exception as error:
        _record_crash(lease, type(error).__name__, tools)
        raise


def _record_crash(lease: Lease, error_type: str, tools: Tools) -> None:
    now = tools.clock.now()
    message = f"Unexpected {error_type} while grading; the worker's log has the place."
    failure = Failure(FailureKind.TRANSIENT, "internal_error", message)
    answer = JudgeAnswer(failure, Usage(), "", None, "")
    step = next_step(tools.policy, failure, attempt=lease.attempt, now=now, jitter=tools.jitter.fraction())
    _postpone(lease, step, None, answer, failure, now, tools)
