"""Looking whether a batch is over, and recording its results by the code that records every answer."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import assert_never

from qa_worker.application._batch_steps import PAGE, Step, dissolved, put_back
from qa_worker.application._grading import (
    Attempt,
    Tools,
    charge,
    crashes_are_recorded,
    evidence_of,
    record,
    record_malformed,
    request_for,
)
from qa_worker.application._later import Later
from qa_worker.application.batching import Item, ItemResult
from qa_worker.application.judging import JudgeAnswer
from qa_worker.application.ports import Claimed, Malformed
from qa_worker.application.voting import needs_votes
from qa_worker.domain.batch import Batch, BatchState, ProviderBatch, ResultKind, is_lost, is_unknown
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind

_RESULTS = 100
"""Results in memory at once, and about as many in one commit."""


def poll(batch: Batch, step: Step) -> None:
    """See whether it is over; tell the provider first if somebody asked for its end."""
    provider_id = batch.provider_id or ""
    # One that was only found may be somebody else's: it isn't ours to cancel.
    if batch.cancel_asked and batch.cancel_told_at is None and not batch.adopted:
        refused = step.service.cancel(provider_id)
        if refused is None or refused.kind is FailureKind.REJECTED:
            batch = replace(batch, cancel_told_at=step.tools.now())
        elif not is_unknown(refused):
            step.leave_faulted(batch, refused)
            return
    answer = step.service.status(provider_id)
    if isinstance(answer, ProviderBatch):
        _looked_at(batch, answer, step)
    elif is_lost(batch, answer, now=step.tools.now()):
        step.leave(dissolved(batch, answer), wait_s=0)
    else:
        step.leave_faulted(batch, answer)


def _looked_at(batch: Batch, found: ProviderBatch, step: Step) -> None:
    well = replace(batch, failure=None, failures=0)
    if found.ended:
        ended_at = found.ended_at or step.tools.now()
        step.leave(replace(well, state=BatchState.ENDED, counts=found.counts, ended_at=ended_at), wait_s=0)
    else:
        step.leave(well, wait_s=step.tools.rules.poll_s)


def collect(batch: Batch, step: Step) -> None:
    """Record the results. Interrupted, it begins anew and leaves alone what is recorded."""
    ours = 0
    if not batch.dissolved:
        with closing(step.service.results(batch.provider_id or "")) as results:
            while page := list(islice(results, _RESULTS)):
                found, recorded = _record_page(batch, [one for one in page if isinstance(one, ItemResult)], step)
                ours += found
                if isinstance(page[-1], Failure):
                    _could_not_read(batch, page[-1], step)
                    return
                if not _go_on(batch, step, progress=recorded > 0):
                    return
        if batch.adopted and not ours:
            _give_up_adopted(batch, step)
            return
    _put_back_the_rest(batch, step)


def _go_on(batch: Batch, step: Step, *, progress: bool) -> bool:
    """Keep the batch; or leave it to the next beat, where the time is over."""
    if step.is_over and progress:
        step.leave(batch, wait_s=0)
        return False
    step.keep(batch, progress=progress)
    return True


def _could_not_read(batch: Batch, failure: Failure, step: Step) -> None:
    if is_lost(batch, failure, now=step.tools.now()):
        step.leave(dissolved(batch, failure), wait_s=0)
    else:
        step.leave_faulted(batch, failure)


def _give_up_adopted(batch: Batch, step: Step) -> None:
    """None of the results is ours: it was another program's batch. Ours is looked for again, or else sent again."""
    with step.tools.units() as work:
        if work.batches.is_one_being_made():
            work.batches.leave(batch, wait_s=step.tools.rules.poll_s)
        else:
            lost = replace(batch, state=BatchState.CREATING, provider_id=None, adopted=False)
            work.batches.leave(lost, wait_s=0)
            work.batches.disown(batch.provider_id or "")
        work.commit()


def _put_back_the_rest(batch: Batch, step: Step) -> None:
    """What has no result goes back: to the queue where the batch came to nothing, and else to wait for the next attempt."""
    while True:
        with step.tools.units() as work:
            page = work.batches.items(batch, after=None, limit=PAGE)
        if not page:
            break
        missing = {item.token: ItemResult(item.token.hex, ResultKind.MISSING) for item in page}
        _record_items(batch, page, missing, step)
        if not _go_on(batch, step, progress=True):
            return
    with step.tools.units() as work:
        cost = work.batches.cost(batch)
        state = BatchState.FAILED if batch.dissolved else BatchState.COLLECTED
        work.batches.leave(replace(batch, state=state, cost_micro_usd=cost, collected_at=step.tools.now()), wait_s=0)
        work.commit()


def _record_page(batch: Batch, results: Iterable[ItemResult], step: Step) -> tuple[int, int]:
    """How many of these results belong to the batch, and how many weren't recorded before; those are."""
    by_token = {token: one for one in results if (token := _token(one.custom_id)) is not None}
    if not by_token:
        return 0, 0
    with step.tools.units() as work:
        ours, items = work.batches.of_tokens(batch, list(by_token))
    _record_items(batch, items, by_token, step)
    return ours, len(items)


def _token(custom_id: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(hex=custom_id)
    except ValueError:
        return None


def _record_items(batch: Batch, items: Sequence[Item], results: Mapping[uuid.UUID, ItemResult], step: Step) -> None:
    """Record each on its own; then all of them are settled. Done twice, by a crash between the two, it changes nothing."""
    grading = step.tools.grading
    to_queue: set[uuid.UUID] = set()
    written: list[tuple[Claimed, JudgeAnswer, Later]] = []
    for item in items:
        if isinstance(item.work, Malformed):
            _give_up(item.work, grading)
            continue
        one, result = item.work, results[item.token]
        with _recorded(one, grading) as attempt:
            if not item.mine:
                _charge_lost(batch, one, result, step)
                continue
            evidence = evidence_of(one)
            answer = attempt.answer = _answer(batch, one, evidence, result, step)
            if _failure_code(answer) in _TO_QUEUE:
                to_queue.add(one.lease.work_id)
            later = Later(grading.records)
            record(one, evidence, answer, replace(grading, records=later))
            written.append((one, answer, later))
    for one, answer, later in written:
        with _recorded(one, grading) as attempt:
            attempt.answer = answer
            later.wait()
    with step.tools.units() as work:
        settled = {item.token: results[item.token].kind for item in items}
        work.batches.settle(batch, settled, to_queue=to_queue)
        work.commit()


@contextmanager
def _recorded(one: Claimed, grading: Tools) -> Iterator[Attempt]:
    """What goes wrong with one call is recorded in its row and must not stop the others."""
    try:
        with crashes_are_recorded(one, grading) as attempt:
            yield attempt
    except LeaseLost:
        return  # charged by now, and dropped
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - it stands in its row, and the other answers are paid for
        grading.context.fault(error, evaluation_id=str(one.lease.work_id))


def _give_up(malformed: Malformed, grading: Tools) -> None:
    with suppress(LeaseLost):
        record_malformed(malformed, grading)


def _charge_lost(batch: Batch, one: Claimed, result: ItemResult, step: Step) -> None:
    """Somebody else has this call by now: the answer is dropped, its bill is not."""
    if result.kind is ResultKind.SUCCEEDED:
        charge(one.lease, _read(batch, one, result, step), step.tools.grading)


def _answer(batch: Batch, one: Claimed, evidence: Evidence, result: ItemResult, step: Step) -> JudgeAnswer:
    match result.kind:
        case ResultKind.SUCCEEDED:
            answer = _read(batch, one, result, step)
            return _without_votes(answer) if needs_votes(request_for(one, evidence), answer) else answer
        case ResultKind.ERRORED:
            return _unanswered(batch, result.failure or _MISSING)
        case ResultKind.CANCELED:
            return put_back("batch_canceled", "The batch was cancelled; the call goes to the queue.", model=batch.model)
        case ResultKind.EXPIRED:
            return put_back(
                "batch_expired",
                "The batch's day was over before the call's turn came; it goes to the queue.",
                model=batch.model,
            )
        case ResultKind.MISSING if batch.dissolved:
            return put_back(
                "batch_dissolved", "The batch came to nothing; the call goes to the queue.", model=batch.model
            )
        case ResultKind.MISSING:
            return _unanswered(batch, _MISSING)
        case _:
            assert_never(result.kind)


def _read(batch: Batch, one: Claimed, result: ItemResult, step: Step) -> JudgeAnswer:
    rubric, provider_id = one.version.rubric, batch.provider_id or ""
    return step.service.read(result, rubric=rubric, model=batch.model, provider_id=provider_id)


def _without_votes(answer: JudgeAnswer) -> JudgeAnswer:
    """A score next to the threshold gets its further answers in the queue. This one was paid for, and is booked."""
    return replace(answer, result=Failure(FailureKind.HELD, _BORDERLINE, _NEAR, retry_after_s=0.0))


def _unanswered(batch: Batch, failure: Failure) -> JudgeAnswer:
    return JudgeAnswer(failure, Usage(), batch.model, batch.provider_id, "")


def _failure_code(answer: JudgeAnswer) -> str:
    return answer.result.code if isinstance(answer.result, Failure) else ""


_BORDERLINE = "borderline"
_NEAR = (
    "The score lies next to the pass threshold; the further answers that its rubric asks for come through the queue."
)
# An expired item uses up no attempt: in the next batch it could expire again, and so for ever.
_TO_QUEUE = frozenset({"batch_canceled", "batch_expired", "batch_dissolved", _BORDERLINE})
# Counted as an attempt, unlike the others: what never shows up must not go round for ever.
_MISSING = Failure(FailureKind.TRANSIENT, "batch_result_missing", "The results of the batch say nothing of this call.")
