"""What backlogs and batches need of the world: rows, the provider's batch service, how large calls are."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Admission, Verdict
from qa_worker.application.ports import CallKey, Claimed, Malformed, RubricVersion
from qa_worker.domain.backlog import Selection
from qa_worker.domain.batch import Batch, ProviderBatch, ResultKind
from qa_worker.domain.call import CallId, WorkspaceId
from qa_worker.domain.failure import Failure
from qa_worker.domain.rubric import Rubric
from qa_worker.domain.work import Lane, WorkState


@dataclass(frozen=True, slots=True)
class StoredSize:
    """How large a stored call is: its turns; characters and UTF-8 bytes of its transcript as JSON and of its agent's texts.

    Tokens are estimated from characters, the bodies of requests are limited in bytes.
    """

    call_chars: int
    turns: int
    agent_chars: int
    call_bytes: int
    agent_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one request will probably take, with nothing read from a cache."""

    input_tokens: int
    output_tokens: int
    body_bytes: int


class Sizer(Protocol):
    """Estimates a request from the sizes of what is stored: no transcript is read for it."""

    def estimate(self, version: RubricVersion, size: StoredSize, *, mean_output: int | None) -> Estimate:
        """`mean_output` is what the model's latest answers had, None where nobody knows."""
        ...


# -- choosing calls


@dataclass(frozen=True, slots=True)
class AgentKey:
    """An agent whose calls are chosen from."""

    id: uuid.UUID
    workspace: WorkspaceId


@dataclass(frozen=True, slots=True)
class Candidate:
    """A call without a done evaluation under the version that holds for it. `state` and `lane` are of the one it has.

    `graded_before`: it has a done one under another version. `size` is None unless it was asked for.
    """

    call: CallKey
    received_at: datetime
    evaluation_id: uuid.UUID | None
    state: WorkState | None
    lane: Lane | None
    graded_before: bool
    size: StoredSize | None

    @property
    def place(self) -> tuple[datetime, CallId]:
        """Where the next page begins."""
        return self.received_at, self.call.id


class BacklogRows(Protocol):
    """Stored calls to choose from, page by page."""

    def agents(self, selection: Selection, *, after: uuid.UUID | None, limit: int) -> Sequence[AgentKey]:
        """The agents of the selection, by their ids."""
        ...

    def count(self, agent: AgentKey, selection: Selection) -> int:
        """How many calls of this agent are in the selection, graded or not; its `choice` doesn't matter."""
        ...

    def candidates(
        self,
        agent: AgentKey,
        version_id: uuid.UUID,
        selection: Selection,
        *,
        after: tuple[datetime, CallId] | None,
        limit: int,
        sized: bool,
    ) -> Sequence[Candidate]:
        """The agent's calls without a done evaluation under this version, by the time they were received."""
        ...

    def move(self, evaluation_ids: Sequence[uuid.UUID], lane: Lane) -> int:
        """Give pending work that isn't live another lane; returns how much of it was pending still."""
        ...

    def mean_output(self, model: str) -> int | None:
        """The mean output tokens of the model's latest answers; None where it has given none."""
        ...


# -- batches


@dataclass(frozen=True, slots=True)
class Waiting:
    """A due evaluation that waits for a batch."""

    evaluation_id: uuid.UUID
    workspace: WorkspaceId
    version_id: uuid.UUID
    size: StoredSize


@dataclass(frozen=True, slots=True)
class NewItem:
    """An evaluation that was claimed for a batch. `estimate_micro_usd` None: the model's price isn't known."""

    token: uuid.UUID
    evaluation_id: uuid.UUID
    workspace: WorkspaceId
    estimate_micro_usd: int | None


@dataclass(frozen=True, slots=True)
class Item:
    """An item without a result yet, with its call. `mine`: its evaluation is leased to this item still."""

    token: uuid.UUID
    work: Claimed | Malformed
    mine: bool
    workspace: WorkspaceId
    estimate_micro_usd: int | None


class BatchRows(Protocol):
    """Batches and their items. One worker is at batches at any time, with a lease on the batch that it is at."""

    def take(self, *, lease_s: float) -> Batch | None:
        """The open batch that has waited longest to be looked at; None where none is due or another worker is at one."""
        ...

    def begin(self, *, but_not: Collection[WorkspaceId], lease_s: float) -> Batch | None:
        """A new one for the model of some due work; None where there is none, or one is being made."""
        ...

    def keep(self, batch: Batch, *, lease_s: float, progress: bool) -> None:
        """Extend the worker's lease; with `progress` the deaths before it are forgotten. Raises LeaseLost."""
        ...

    def save(self, batch: Batch, *, lease_s: float) -> None:
        """Write it down and stay at it. Raises LeaseLost."""
        ...

    def leave(self, batch: Batch, *, wait_s: float) -> None:
        """Write it down and give the lease back; it is looked at again after `wait_s`. Raises LeaseLost."""
        ...

    def drop(self, batch: Batch) -> None:
        """Forget a batch without items. Raises LeaseLost."""
        ...

    def waiting(self, batch: Batch, *, but_not: Collection[WorkspaceId], limit: int) -> Sequence[Waiting]:
        """Due work of the batch's model that waits for one."""
        ...

    def versions(self, version_ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, RubricVersion]:
        """These rubric versions."""
        ...

    def add(self, batch: Batch, items: Sequence[NewItem]) -> None:
        """Put claimed evaluations into the batch."""
        ...

    def remove(self, batch: Batch, tokens: Collection[uuid.UUID]) -> None:
        """Take items out of a batch that was not sent."""
        ...

    def extend_items(self, batch: Batch, *, lease_s: float) -> Batch:
        """Extend the leases of the evaluations in it."""
        ...

    def items(self, batch: Batch, *, after: uuid.UUID | None, limit: int) -> Sequence[Item]:
        """Items without a result, by their tokens."""
        ...

    def of_tokens(self, batch: Batch, tokens: Collection[uuid.UUID]) -> tuple[int, Sequence[Item]]:
        """How many of these tokens belong to the batch, and those of them that have no result yet."""
        ...

    def settle(
        self, batch: Batch, results: Mapping[uuid.UUID, ResultKind], *, to_queue: Collection[uuid.UUID] = ()
    ) -> None:
        """Note what became of items; the evaluations `to_queue`, if they wait now, leave the batch lane."""
        ...

    def cost(self, batch: Batch) -> int | None:
        """What its attempts have cost together, in micro-dollars; None where no price is known."""
        ...

    def known(self, provider_ids: Collection[str]) -> set[str]:
        """Those of the provider's batches that belong to a row."""
        ...

    def is_one_being_made(self) -> bool:
        """Whether a batch is being prepared or created."""
        ...

    def disown(self, provider_id: str) -> None:
        """Remember that this batch of the provider's is somebody else's."""
        ...

    def ask_cancel(self, name: str) -> Sequence[uuid.UUID]:
        """Ask for the open batch with this id, beginning of an id, or provider's id to be cancelled; those it fits.

        Nothing is asked where it fits several.
        """
        ...

    def count_waiting(self) -> int:
        """How much due work waits for a batch."""
        ...


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One line of a batch's results: the message of an item that succeeded, or the failure of one that didn't."""

    custom_id: str
    kind: ResultKind
    message: bytes = b""
    failure: Failure | None = None


class Draft(Protocol):
    """A batch that is being put together, outside of memory."""

    @property
    def count(self) -> int:
        """Its requests."""
        ...

    def add(self, custom_id: str, request: JudgeRequest) -> bool:
        """Add a request; False where it doesn't fit any more."""
        ...

    def send(self) -> ProviderBatch | Failure:
        """Create the batch. Not idempotent: see `qa_worker.domain.batch`."""
        ...


class BatchService(Protocol):
    """The provider's batches. Its faults are a `Failure`, never an exception."""

    def draft(self) -> AbstractContextManager[Draft]:
        """An empty one."""
        ...

    def since(self, at: datetime) -> Sequence[ProviderBatch] | Failure:
        """The provider's batches that were created at or after this time, whoever made them."""
        ...

    def status(self, provider_id: str) -> ProviderBatch | Failure:
        """Where a batch stands."""
        ...

    def cancel(self, provider_id: str) -> Failure | None:
        """Ask that no more of it is done; it ends some time later."""
        ...

    def results(self, provider_id: str) -> Generator[ItemResult | Failure, None, None]:
        """The results of a batch that has ended, in any order, a line at a time. A failure is the last one."""
        ...

    def read(self, result: ItemResult, *, rubric: Rubric, model: str, provider_id: str) -> JudgeAnswer:
        """What the message of an item that succeeded says, priced as a batch."""
        ...


class BlockingGate(Protocol):
    """The gate in front of the provider (see `Gate`), for callers that block."""

    def admit(self, service: str) -> Admission:
        """May a request leave?"""
        ...

    def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        """What the request said about the service."""
        ...
