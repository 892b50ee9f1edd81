"""What grading one call and grading many have in common: evidence, the question to the judge, the record of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from qa_worker.application._matching import note_buried, note_graded
from qa_worker.application.judging import Judge, JudgeAnswer, JudgeRequest
from qa_worker.application.ports import (
    AttemptRecord,
    Claimed,
    Clock,
    Grading,
    Jitter,
    Leases,
    LogContext,
    Malformed,
    Records,
    UnitOfWork,
    UnitOfWorkFactory,
)
from qa_worker.domain import rules
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.evaluation import Assessment, Evaluation, Usage
from qa_worker.domain.evidence.collect import collect
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt
from qa_worker.domain.pricing import cost_micro_usd
from qa_worker.domain.retry import RetryPolicy, Tried, next_step
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.verdict import could_not_read, decide
from qa_worker.domain.work import Lease

LEASE_LOST = "lease lost: another worker has this call by now"


@dataclass(frozen=True, slots=True)
class Tools:
    """What grading calls needs of the world.

    `share` is how many live calls of one workspace may be under way for a further one to begin that nobody has sent.
    """

    uow: UnitOfWorkFactory
    records: Records
    leases: Leases
    context: LogContext
    judges: dict[JudgeKind, Judge]
    clock: Clock
    jitter: Jitter
    policy: RetryPolicy
    grading: Grading
    lease_s: float
    share: int = 8


def evidence_of(claimed: Claimed) -> Evidence:
    """What can be established about this call without a model."""
    call = claimed.call
    return collect(call.transcript, agent=call.agent, expected=call.expected, checks=claimed.version.rubric.checks)


def request_for(claimed: Claimed, evidence: Evidence, *, can_wait: bool = False) -> JudgeRequest:
    """The question to the judge."""
    return JudgeRequest(
        call=claimed.call,
        rubric=claimed.version.rubric,
        evidence=evidence,
        spec=claimed.version.judge,
        key=str(claimed.key.workspace),
        can_wait=can_wait,
    )


def no_judge(claimed: Claimed) -> JudgeAnswer:
    """The answer of a worker that has not the judge it would need: nothing stands in for it."""
    kind = claimed.version.judge.kind.value
    message = f"This worker has no judge '{kind}'. For Claude, set ANTHROPIC_API_KEY where the worker runs."
    failure = Failure(FailureKind.BLOCKED, "no_judge", message)
    return JudgeAnswer(failure, Usage(), claimed.version.judge.model, None, "")


def record(claimed: Claimed, evidence: Evidence, answer: JudgeAnswer, tools: Tools) -> Done | RetryAt | Parked | Dead:
    """Decide what the answer means and write it down. Raises LeaseLost, StoreUnavailable."""
    match answer.result:
        case Assessment():
            return _finish(claimed, evidence, _decided(claimed, evidence, answer.result), answer, tools)
        case Failure():
            return _failed(claimed, evidence, answer, answer.result, tools)
        case _:
            assert_never(answer.result)


def record_malformed(malformed: Malformed, tools: Tools) -> Dead:
    """A row that can't be understood is given up on at once, visibly."""
    failure = Failure(FailureKind.REJECTED, "malformed_row", malformed.problem)
    _postpone(malformed.lease, Dead(failure.code), None, JudgeAnswer(failure, Usage(), "", None, ""), tools)
    return Dead(failure.code)


@dataclass(slots=True)
class Attempt:
    """What is known of an attempt so far: its paid answer, once there is one."""

    answer: JudgeAnswer | None = None


@contextmanager
def crashes_are_recorded(claimed: Claimed, tools: Tools) -> Iterator[Attempt]:
    """A fault of our own is written to the row before it is raised: the attempt counts, with what it has cost."""
    attempt = Attempt()
    try:
        yield attempt
    except StoreUnavailable:
        raise
    except LeaseLost:
        if attempt.answer is not None:
            charge(claimed.lease, attempt.answer, tools)
        raise
    except Exception as error:
        _record_crash(claimed.lease, type(error).__name__, attempt.answer, tools)
        raise


def charge(lease: Lease, answer: JudgeAnswer, tools: Tools) -> None:
    """Book what an answer has cost whose lease was lost. Doing it twice changes nothing."""
    record_ = attempt_record("abandoned", answer, tools.clock.now())
    tools.records.write(lambda work: work.evaluations.charge(lease, record_))


def _record_crash(lease: Lease, error_type: str, answer: JudgeAnswer | None, tools: Tools) -> None:
    message = f"Unexpected {error_type} while grading; the worker's log has the place."
    failure = Failure(FailureKind.TRANSIENT, "internal_error", message)
    spent = JudgeAnswer(failure, Usage(), "", None, "") if answer is None else replace(answer, result=failure)
    now, jitter = tools.clock.now(), tools.jitter.fraction()
    step = next_step(tools.policy, failure, tried=Tried(lease.attempt, lease.parked), now=now, jitter=jitter)
    _postpone(lease, step, None, spent, tools)


def _decided(claimed: Claimed, evidence: Evidence, assessment: Assessment) -> Evaluation:
    rubric, transcript = claimed.version.rubric, claimed.call.transcript
    if claimed.version.judge.kind is JudgeKind.RULES:
        # It has reported every fact as a finding already.
        return decide(assessment, rubric=rubric, transcript=transcript)
    bounded = rules.capped(assessment, evidence, rubric=rubric)
    return decide(bounded, rubric=rubric, transcript=transcript, established=rules.established(evidence, rubric=rubric))


def _failed(
    claimed: Claimed, evidence: Evidence, answer: JudgeAnswer, failure: Failure, tools: Tools
) -> Done | RetryAt | Parked | Dead:
    now, jitter = tools.clock.now(), tools.jitter.fraction()
    step = next_step(
        tools.policy, failure, tried=tried_before(claimed.lease, answer, failure, tools), now=now, jitter=jitter
    )
    if isinstance(step, Dead) and failure.kind is FailureKind.UNREADABLE:
        rubric = claimed.version.rubric
        unread = could_not_read(
            rubric=rubric, code=failure.code, established=rules.established(evidence, rubric=rubric)
        )
        return _finish(claimed, evidence, unread, answer, tools)
    return _postpone(claimed.lease, step, evidence, answer, tools)


def tried_before(lease: Lease, answer: JudgeAnswer, failure: Failure, tools: Tools) -> Tried:
    """How often this was tried, the attempt with this answer, which is a failure, included."""
    unreadable = 0
    if failure.kind is FailureKind.UNREADABLE:
        counted: list[int] = []
        # Through the records, which are patient with a database that is away: the answer was paid for. And waited for
        # here: in a bulk message `write` alone only hands over.
        tools.records.submit(
            lambda work: counted.append(work.evaluations.failures(lease.work_id, failure.kind))
        ).result()
        unreadable = 1 + counted[-1]
    return Tried(lease.attempt, lease.parked, unreadable, paid=answer.usage != Usage())


def _finish(claimed: Claimed, evidence: Evidence, evaluation: Evaluation, answer: JudgeAnswer, tools: Tools) -> Done:
    attempt = attempt_record("done", answer, tools.clock.now())

    def write(work: UnitOfWork) -> None:
        work.evaluations.finish(claimed.lease, claimed.key, evaluation, evidence, attempt)
        note_graded(work, claimed.key, claimed.lease.work_id, evaluation, at=attempt.ended_at)

    tools.records.write(write, lease=claimed.lease)
    return Done(evaluation.verdict.value)


def _postpone(
    lease: Lease, step: RetryAt | Parked | Dead, evidence: Evidence | None, answer: JudgeAnswer, tools: Tools
) -> RetryAt | Parked | Dead:
    # The row gets seconds, counted by the database's clock: a worker's own may be wrong.
    now = tools.clock.now()

    def write(work: UnitOfWork) -> None:
        match step:
            case RetryAt(when, reason):
                attempt = attempt_record("retry", answer, now)
                wait_s = (when - now).total_seconds()
                work.evaluations.wait(lease, wait_s=wait_s, reason=reason, counts=True, record=attempt)
            case Parked(until, reason):
                attempt = attempt_record("parked", answer, now)
                wait_s = (until - now).total_seconds()
                work.evaluations.wait(lease, wait_s=wait_s, reason=reason, counts=False, record=attempt)
            case Dead():
                work.evaluations.bury(lease, evidence=evidence, record=attempt_record("dead", answer, now))
                note_buried(work, lease.work_id)
            case _:
                assert_never(step)

    tools.records.write(write, lease=lease)
    return step


def attempt_record(result: str, answer: JudgeAnswer, now: datetime) -> AttemptRecord:
    """What is written about an attempt that ended in this answer."""
    failure = answer.result if isinstance(answer.result, Failure) else None
    return AttemptRecord(
        result=result,
        ended_at=now,
        usage=answer.usage,
        model=answer.model,
        cost_micro_usd=_cost(answer, now),
        request_id=(failure.request_id if failure else None) or answer.request_id,
        failure=failure,
        raw=answer.raw,
    )


def _cost(answer: JudgeAnswer, now: datetime) -> int | None:
    """The bills of all its requests together; None where no price is known."""
    # Where nothing was used, nothing is owed, whatever the model would have cost.
    billed = [one for one in answer.usages or (answer.usage,) if one.prompt_tokens or one.output_tokens]
    if not answer.model:
        return 0
    costs = [cost_micro_usd(one, model=answer.model, at=now.date(), batch=answer.batch) for one in billed]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
