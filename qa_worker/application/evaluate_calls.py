"""Grade many calls of one message, each claimed, graded and recorded on its own: the bulk lane of the backlog.

A message that comes again skips what is done; a worker that dies loses the leases of those that were not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
from qa_worker.application.judging import JudgeAnswer
from qa_worker.application.ports import Claimed, Malformed
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.outcome import Outcome, Skipped
from qa_worker.domain.rubric import JudgeKind


def evaluate_calls(*, evaluation_ids: Sequence[uuid.UUID], tools: Tools) -> tuple[Outcome, ...]:
    """Grade calls at the same time; an outcome for each that was free to be claimed, in the order of their end.

    Raises:
        StoreUnavailable: the database is out of reach. What was recorded before stays; the rest is found by the sweep.
        ExceptionGroup: errors of ours, each recorded in its row; the other calls were graded all the same.

    """
    with tools.uow() as work:
        taken = work.evaluations.claim(evaluation_ids, lease_s=tools.lease_s)
        work.commit()
    claimed = [one for one in taken if isinstance(one, Claimed)]
    outcomes: list[Outcome] = [record_malformed(one, tools) for one in taken if isinstance(one, Malformed)]
    faults: list[Exception] = []
    with tools.leases.hold([one.lease for one in claimed]):
        ready: list[tuple[Claimed, Evidence]] = []
        for one in claimed:
            with _collected(one, tools, outcomes, faults):
                ready.append((one, evidence_of(one)))
        for one, evidence, answer in _answers(ready, tools):
            with _collected(one, tools, outcomes, faults) as attempt:
                if isinstance(answer, Exception):
                    raise answer
                attempt.answer = answer
                outcomes.append(record(one, evidence, answer, tools))
    if faults:
        raise ExceptionGroup("some calls of a batch met an error of ours", faults)
    return tuple(outcomes)


def _answers(
    ready: Sequence[tuple[Claimed, Evidence]], tools: Tools
) -> Iterator[tuple[Claimed, Evidence, JudgeAnswer | Exception]]:
    for kind in JudgeKind:
        chosen = [(one, evidence) for one, evidence in ready if one.version.judge.kind is kind]
        judge = tools.judges.get(kind)
        if judge is None:
            yield from ((one, evidence, no_judge(one)) for one, evidence in chosen)
        elif chosen:
            requests = [request_for(one, evidence) for one, evidence in chosen]
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
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - raised at the end, when the other calls are done
        faults.append(error)
