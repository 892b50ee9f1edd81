"""Grade many calls of one message, each claimed, graded and recorded on its own: the bulk lane of the backlog.

A message that comes again skips what is done; a worker that dies loses the leases of those that were not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from qa_worker.application._admission import evaluations_of
from qa_worker.application._grading import (
    LEASE_LOST,
    Attempt,
    Tools,
    crashes_are_recorded,
    evidence_of,
    no_judge,
    record,
    record_malformed,
    request_for,
)
from qa_worker.application._later import Later
from qa_worker.application.judging import JudgeAnswer
from qa_worker.application.ports import Claimed, Malformed
from qa_worker.domain.call import CallId
from qa_worker.domain.errors import LeaseLost, QaError, StoreUnavailable
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.outcome import Outcome, Skipped
from qa_worker.domain.rubric import JudgeKind


def evaluate_calls(
    *, evaluation_ids: Sequence[uuid.UUID] = (), call_ids: Sequence[CallId] = (), tools: Tools
) -> tuple[Outcome, ...]:
    """Grade calls at the same time; an outcome for each that was free to be claimed, in the order of their end.

    Of `call_ids` each one's evaluation under the rubric that holds for it, made if need be; unknown calls are left out.

    Raises:
        StoreUnavailable: the database is out of reach. What was recorded before stays; the rest is found by the sweep.
        SomeFailed: errors of ours, each recorded in its row and logged; the other calls were graded all the same.

    """
    with tools.uow() as work:
        chosen = [*evaluation_ids, *evaluations_of(work, call_ids, grading=tools.grading)]
        taken = work.evaluations.claim(chosen, lease_s=tools.lease_s)
        work.commit()
    claimed = [one for one in taken if isinstance(one, Claimed)]
    outcomes: list[Outcome] = []
    faults: list[Exception] = []
    for malformed in taken:
        if isinstance(malformed, Malformed):
            with suppress(LeaseLost):
                outcomes.append(record_malformed(malformed, tools))
    with tools.leases.hold([one.lease for one in claimed]):
        ready: list[tuple[Claimed, Evidence]] = []
        for one in claimed:
            with _collected(one, tools, outcomes, faults):
                ready.append((one, evidence_of(one)))
        written: list[tuple[Claimed, JudgeAnswer, Outcome, Later]] = []
        for one, evidence, answer in _answers(ready, tools):
            with _collected(one, tools, outcomes, faults) as attempt:
                if isinstance(answer, Exception):
                    raise answer
                attempt.answer = answer
                # Not waited for one by one: the next answers are on their way, and one commit can hold many results.
                later = Later(tools.records)
                decided = record(one, evidence, answer, replace(tools, records=later))
                written.append((one, answer, decided, later))
        for one, answer, outcome, later in written:
            with _collected(one, tools, outcomes, faults) as attempt:
                attempt.answer = answer
                later.wait()
                outcomes.append(outcome)
    if faults:
        raise next((fault for fault in faults if isinstance(fault, StoreUnavailable)), SomeFailed(len(faults)))
    return tuple(outcomes)


class SomeFailed(QaError):
    """Some calls of a message met errors of ours; each stands in its row and in the log, with its place."""


def _answers(
    ready: Sequence[tuple[Claimed, Evidence]], tools: Tools
) -> Iterator[tuple[Claimed, Evidence, JudgeAnswer | Exception]]:
    for kind in JudgeKind:
        chosen = [(one, evidence) for one, evidence in ready if one.version.judge.kind is kind]
        judge = tools.judges.get(kind)
        if judge is None:
            yield from ((one, evidence, no_judge(one)) for one, evidence in chosen)
        elif chosen:
            requests = [request_for(one, evidence, can_wait=True) for one, evidence in chosen]
            for number, answer in judge.grade_each(requests):
                yield (*chosen[number], answer)


@contextmanager
def _collected(one: Claimed, tools: Tools, outcomes: list[Outcome], faults: list[Exception]) -> Iterator[Attempt]:
    """What goes wrong with one call is recorded in its row and must not stop the others."""
    try:
        with crashes_are_recorded(one, tools) as attempt:
            yield attempt
    except LeaseLost:
        outcomes.append(Skipped(LEASE_LOST))
    except Exception as error:  # noqa: BLE001 - raised at the end: the other answers are paid for, and are recorded
        tools.context.fault(error, evaluation_id=str(one.lease.work_id))
        faults.append(error)
