"""What the steps of a batch have in common: their tools, and how a batch is written down between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from qa_worker.application._grading import Tools
from qa_worker.application.batching import BacklogRows, BatchRows, BatchService, Sizer
from qa_worker.application.judging import JudgeAnswer
from qa_worker.application.ports import Evaluations, Rubrics
from qa_worker.application.purse import Left
from qa_worker.domain.batch import Batch, BatchState, failed, wait_s
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.messages import Message

LEASE_S = 600.0
"""A worker's lease on the batch that it is at. Longer than sending it may take, so that nobody looks for it meanwhile."""
PAGE = 200
"""Calls in memory at once."""


class BatchUnit(Protocol):
    """A unit of work (see `UnitOfWork`), as backlogs and batches need it."""

    @property
    def rubrics(self) -> Rubrics: ...
    @property
    def evaluations(self) -> Evaluations: ...
    @property
    def backlog(self) -> BacklogRows: ...
    @property
    def batches(self) -> BatchRows: ...

    def nudge(self, message: Message) -> None:
        """Send this after the commit."""
        ...

    def commit(self) -> None:
        """Make it true."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


BatchUnits = Callable[[], BatchUnit]


@dataclass(frozen=True, slots=True)
class BatchRules:
    """`max_requests` a batch; `lease_s` of the evaluations in it; looks every `poll_s` while it is in progress.

    A batch whose creation ended without an answer is looked for over `settle_s` before it is sent again.
    """

    max_requests: int
    lease_s: float
    poll_s: float
    settle_s: float


@dataclass(frozen=True, slots=True)
class BatchTools:
    """What batches need of the world. `service` None: this process has no key for it."""

    units: BatchUnits
    grading: Tools
    service: BatchService | None
    left: Callable[[], Left]
    sizer: Sizer
    rules: BatchRules

    def now(self) -> datetime:
        """The time of day."""
        return self.grading.clock.now()


@dataclass(frozen=True, slots=True)
class Step:
    """One batch in one worker's hands. `until`: what can be interrupted ends then, and goes on with the next beat."""

    tools: BatchTools
    service: BatchService
    until: datetime

    @property
    def is_over(self) -> bool:
        """True when somebody else should have the worker's slot."""
        return self.tools.now() >= self.until

    def leave(self, batch: Batch, *, wait_s: float) -> None:
        """Write the batch down; it is looked at again after so many seconds."""
        with self.tools.units() as work:
            work.batches.leave(batch, wait_s=wait_s)
            work.commit()

    def leave_faulted(self, batch: Batch, failure: Failure, *, at_least_s: float = 0.0) -> None:
        """Write down a fault of the provider; the batch waits by the schedule of retries, in the state that it is in."""
        after = failed(batch, failure)
        self.leave(after, wait_s=max(self.waits_s(after), at_least_s))

    def keep(self, batch: Batch, *, progress: bool = True) -> None:
        """Go on for another while. Without `progress` it isn't known yet whether this worker survives it."""
        with self.tools.units() as work:
            work.batches.keep(batch, lease_s=LEASE_S, progress=progress)
            work.commit()

    def waits_s(self, batch: Batch) -> float:
        """How long a batch waits after its latest fault."""
        jitter = self.tools.grading.jitter.fraction()
        return wait_s(self.tools.grading.policy, batch, now=self.tools.now(), jitter=jitter)


def dissolved(batch: Batch, failure: Failure | None) -> Batch:
    """The batch when no results are to be had: its calls go back, one by one, in the step that reads results."""
    return replace(batch, state=BatchState.ENDED, dissolved=True, failure=failure or batch.failure)


def put_back(code: str, message: str, *, model: str) -> JudgeAnswer:
    """The answer that puts a call back at once: no attempt is used up, for nothing was asked."""
    failure = Failure(FailureKind.HELD, code, message, retry_after_s=0.0)
    return JudgeAnswer(failure, Usage(), model, None, "")
