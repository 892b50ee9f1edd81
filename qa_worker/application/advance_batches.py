"""Go on with batches: make them of what waits, look whether they are over, record their results.

Each step is short transactions or one call of the provider, never one within the other. A worker that dies in a step
leaves a batch in a state from which the next beat goes on. See `qa_worker.domain.batch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from qa_worker.application._batch_collecting import collect, poll
from qa_worker.application._batch_making import look_for, make
from qa_worker.application._batch_steps import LEASE_S, BatchTools, Step, dissolved
from qa_worker.application.purse import Purse
from qa_worker.domain.batch import Batch, BatchState
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.failure import Failure, FailureKind

RUN_S = 45.0
"""A run ends soon after this: less than workers are given to end, and a slot of theirs isn't held for long."""
_DEATHS = 3
_KILLER = Failure(
    FailureKind.ABANDONED, "workers_died", f"{_DEATHS} workers died over this batch; its calls go through the queue."
)
_CANCELLED = Failure(FailureKind.HELD, "cancelled", "Cancelled before it was sent.")


@dataclass(frozen=True, slots=True)
class Advanced:
    """`steps` that were taken. `stuck`: so many calls wait for a batch, and this worker has no key to make one."""

    steps: int = 0
    stuck: int = 0


def advance_batches(*, tools: BatchTools) -> Advanced:
    """Take steps until none is due, for about `RUN_S`. Several runs at once take turns.

    Raises:
        StoreUnavailable: the database is out of reach; a later beat goes on, when the lease of this one has run out.

    """
    if tools.service is None:
        with tools.units() as work:
            return Advanced(stuck=work.batches.count_waiting())
    step = Step(tools, tools.service, until=tools.now() + timedelta(seconds=RUN_S))
    steps = 0
    while not step.is_over and _advance(step, tools):
        steps += 1
    return Advanced(steps)


def _advance(step: Step, tools: BatchTools) -> bool:
    """Take one step; False where there is none to take."""
    with tools.units() as work:
        batch = work.batches.take(lease_s=LEASE_S)
        work.commit()
    purse = Purse(tools.left())
    if batch is None and not purse.empty:
        with tools.units() as work:
            batch = work.batches.begin(but_not=purse.refused, lease_s=LEASE_S)
            work.commit()
    if batch is None:
        return False
    tools.grading.context.bind(batch_id=str(batch.id))
    try:
        return _take(batch, purse, step)
    except LeaseLost:  # it took too long, and another worker has it by now
        return True


def _take(batch: Batch, purse: Purse, step: Step) -> bool:
    """One step of this batch; False where another one would be no use now."""
    if batch.state is not BatchState.PREPARING and batch.items_leased_s < step.tools.rules.lease_s / 2:
        with step.tools.units() as work:
            work.batches.extend_items(batch, lease_s=step.tools.rules.lease_s)
            work.commit()
    match batch.state:
        case BatchState.PREPARING | BatchState.ENDED if batch.deaths > _DEATHS:
            collect(dissolved(batch, _KILLER), step)
        case BatchState.PREPARING if batch.cancel_asked:
            collect(dissolved(batch, _CANCELLED), step)
        case BatchState.PREPARING:
            return make(batch, purse, step)
        case BatchState.CREATING:
            look_for(batch, step)
        case BatchState.IN_PROGRESS:
            poll(batch, step)
        case BatchState.ENDED:
            collect(batch, step)
        case _:
            raise AssertionError(f"a batch that is {batch.state} was taken")
    return True
