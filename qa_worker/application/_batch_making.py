"""Making a batch: claim what waits, put the requests together, send them, and find out whether they arrived."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

from qa_worker.application._batch_steps import LEASE_S, PAGE, BatchUnit, Step, dissolved, put_back
from qa_worker.application._grading import (
    crashes_are_recorded,
    evidence_of,
    record,
    record_malformed,
    request_for,
)
from qa_worker.application.batching import Draft, NewItem, Waiting
from qa_worker.application.ports import Claimed, Malformed, RubricVersion
from qa_worker.application.purse import Purse
from qa_worker.domain.batch import (
    CLOCK_SKEW,
    Batch,
    BatchState,
    ProviderBatch,
    is_lost,
    is_refused_for_good,
    surely_not_made,
    the_same,
)
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure
from qa_worker.domain.pricing import cost_micro_usd

_MAKE_AGAIN_S = 60.0
"""Putting a batch together again takes a minute of CPU: not sooner than after this."""
_LOOK_S = 30.0


@dataclass(slots=True)
class _Making:
    """A batch that is being put together. `full`: nothing more fits."""

    batch: Batch
    draft: Draft
    purse: Purse
    step: Step
    versions: dict[uuid.UUID, RubricVersion] = field(default_factory=dict)
    mean_output: int | None = None
    full: bool = False
    oversized: list[uuid.UUID] = field(default_factory=list)


def make(batch: Batch, purse: Purse, step: Step) -> bool:
    """Put a batch together and send it; False where nothing came together, though something waits.

    One that a dead worker left, or that was refused for now, is put together anew.
    """
    with step.service.draft() as draft:
        making = _Making(batch, draft, purse, step)
        _put_in_again(making)
        _fill(making)
        if not draft.count:
            with step.tools.units() as work:
                work.batches.drop(batch)
                work.commit()
            return False
        _send(batch, draft, step)
        return True


def look_for(batch: Batch, step: Step) -> None:
    """Find out whether a batch was created whose creation ended without an answer."""
    now = step.tools.now()
    batch = replace(batch, unsure_since=batch.unsure_since or now)
    listed = step.service.since((batch.began_at or now) - CLOCK_SKEW)
    if isinstance(listed, Failure):
        if is_lost(batch, listed, now=now):
            step.leave(dissolved(batch, listed), wait_s=0)
        else:
            step.leave_faulted(batch, listed)
        return
    with step.tools.units() as work:
        known = work.batches.known([one.id for one in listed])
    found = the_same(batch, listed, known=known)
    unsure_for_s = (now - (batch.unsure_since or now)).total_seconds()
    if found is not None:
        step.leave(_submitted(batch, found, adopted=True), wait_s=0)
    elif unsure_for_s < step.tools.rules.settle_s:
        step.leave(batch, wait_s=min(_LOOK_S, step.tools.rules.settle_s - unsure_for_s))
    else:
        step.leave(replace(batch, state=BatchState.PREPARING), wait_s=step.waits_s(batch))


def _put_in_again(making: _Making) -> None:
    after: uuid.UUID | None = None
    while True:
        with making.step.tools.units() as work:
            page = work.batches.items(making.batch, after=after, limit=PAGE)
        if not page:
            return
        after = page[-1].token
        for item in page:
            making.purse.take(item.workspace, item.estimate_micro_usd)
        mine = [item.work for item in page if item.mine]
        _take_out(making, [item.token for item in page if not item.mine])
        _put_in(making, mine)
        making.step.keep(making.batch, progress=False)


def _fill(making: _Making) -> None:
    tools, batch = making.step.tools, making.batch
    while not making.full and not making.purse.empty:
        room = min(PAGE, tools.rules.max_requests - making.draft.count)
        if room <= 0:
            return
        with tools.units() as work:
            claimed = _claim(making, work, room)
            work.commit()
        if claimed is None:
            return
        _put_in(making, claimed)
        making.step.keep(batch)


def _claim(making: _Making, work: BatchUnit, room: int) -> Sequence[Claimed | Malformed] | None:
    """What could be claimed and paid for; None where nothing more waits."""
    batch = making.batch
    waiting = work.batches.waiting(batch, but_not=making.purse.refused, limit=room)
    if not waiting:
        return None
    priced = {one.evaluation_id: (one, cost) for one, cost in _paid_for(making, work, waiting)}
    if not priced:
        return []
    claimed = work.evaluations.claim(list(priced), lease_s=making.step.tools.rules.lease_s)
    if not claimed:
        return None  # somebody else is taking the very same rows
    items = [
        NewItem(
            one.lease.token, one.lease.work_id, priced[one.lease.work_id][0].workspace, priced[one.lease.work_id][1]
        )
        for one in claimed
    ]
    work.batches.add(batch, items)
    return claimed


def _paid_for(making: _Making, work: BatchUnit, waiting: Sequence[Waiting]) -> Iterator[tuple[Waiting, int | None]]:
    """Those for whose estimated cost something is left. The others stay what they are: pending."""
    tools, model = making.step.tools, making.batch.model
    unknown = {one.version_id for one in waiting} - making.versions.keys()
    if unknown:
        making.versions.update(work.batches.versions(unknown))
        making.mean_output = work.backlog.mean_output(model)
    for one in waiting:
        guess = tools.sizer.estimate(making.versions[one.version_id], one.size, mean_output=making.mean_output)
        usage = Usage(input_tokens=guess.input_tokens, output_tokens=guess.output_tokens)
        cost = cost_micro_usd(usage, model=model, at=tools.now().date(), batch=True)
        if making.purse.take(one.workspace, cost):
            yield one, cost


def _put_in(making: _Making, claimed: Sequence[Claimed | Malformed]) -> None:
    out = [one.lease.token for one in claimed if not _is_in(making, one)]
    _take_out(making, out)


def _is_in(making: _Making, one: Claimed | Malformed) -> bool:
    """Whether the request could be added. One that could not has gone back, or was given up on."""
    grading = making.step.tools.grading
    if isinstance(one, Malformed):
        with suppress(LeaseLost):
            record_malformed(one, grading)
        return False
    try:
        with crashes_are_recorded(one, grading):
            if making.draft.add(one.lease.token.hex, request_for(one, evidence_of(one))):
                return True
            making.full = True
            if not making.draft.count:
                making.oversized.append(one.lease.work_id)
            full = put_back("batch_full", "The batch was full.", model=making.batch.model)
            record(one, Evidence(), full, grading)
    except StoreUnavailable:
        raise
    except LeaseLost:
        return False
    except Exception as error:  # noqa: BLE001 - recorded in its row; the other calls of the batch go on
        grading.context.fault(error, evaluation_id=str(one.lease.work_id))
    return False


def _take_out(making: _Making, tokens: Collection[uuid.UUID]) -> None:
    if tokens:
        with making.step.tools.units() as work:
            work.batches.remove(making.batch, tokens)
            # Larger than a whole batch may be: only the queue can have it.
            work.batches.settle(making.batch, {}, to_queue=making.oversized)
            work.commit()


def _send(batch: Batch, draft: Draft, step: Step) -> None:
    tools = step.tools
    sent = replace(batch, state=BatchState.CREATING, request_count=draft.count, began_at=tools.now(), unsure_since=None)
    with tools.units() as work:
        # Its day begins now, however long it was put off.
        work.batches.extend_items(sent, lease_s=tools.rules.lease_s)
        work.batches.save(sent, lease_s=LEASE_S)
        work.commit()
    answer = draft.send()
    if isinstance(answer, ProviderBatch):
        step.leave(_submitted(sent, answer, adopted=False), wait_s=tools.rules.poll_s)
    elif is_refused_for_good(answer):
        step.leave(dissolved(sent, answer), wait_s=0)
    elif surely_not_made(answer):
        step.leave_faulted(replace(sent, state=BatchState.PREPARING), answer, at_least_s=_MAKE_AGAIN_S)
    else:
        unsure = replace(sent, unsure_since=tools.now(), failure=answer, failures=batch.failures + 1)
        step.leave(unsure, wait_s=0)


def _submitted(batch: Batch, made: ProviderBatch, *, adopted: bool) -> Batch:
    return replace(
        batch,
        state=BatchState.IN_PROGRESS,
        provider_id=made.id,
        adopted=adopted,
        submitted_at=made.created_at,
        expires_at=made.expires_at or made.created_at + timedelta(hours=24),
        failure=None,
        failures=0,
    )
