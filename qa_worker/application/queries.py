"""What can be asked: read-only views, each made for one page or command."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from qa_worker.application.purse import Left
from qa_worker.domain.evaluation import CriterionScore, Finding, Usage
from qa_worker.domain.work import WorkState


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt as people see it."""

    attempt: int
    result: str
    started_at: datetime
    ended_at: datetime
    error_kind: str | None
    error_code: str
    error_message: str
    model: str
    request_id: str | None
    usage: Usage
    cost_micro_usd: int | None
    raw: str


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """One evaluation with all that belongs to it. `verdict` is None while the work isn't over."""

    id: uuid.UUID
    call_id: uuid.UUID
    ref: str
    external_id: str | None
    agent: str
    rubric: str
    rubric_version: str
    judge: str
    model: str
    state: WorkState
    attempt: int
    max_attempts: int
    not_before: datetime
    wait_reason: str
    error_kind: str | None
    error_code: str
    error_message: str
    verdict: str | None
    overall: int | None
    reasons: tuple[str, ...]
    summary: str
    dropped_quotes: int
    evaluated_at: datetime | None
    is_current: bool
    evidence: Mapping[str, Any]
    usage: Usage
    cost_micro_usd: int | None
    scores: tuple[CriterionScore, ...]
    findings: tuple[Finding, ...]
    attempts: tuple[AttemptView, ...]

    @property
    def final(self) -> bool:
        """True when nothing more will happen by itself."""
        return self.state in (WorkState.DONE, WorkState.DEAD)


@dataclass(frozen=True, slots=True)
class CallView:
    """A call with every evaluation of it, the newest first."""

    id: uuid.UUID
    workspace: str
    ref: str
    external_id: str | None
    agent: str
    agent_version: str
    started_at: datetime | None
    received_at: datetime
    transcript: Sequence[Mapping[str, Any]]
    evaluations: tuple[EvaluationView, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one evaluation stands. `blocked`: it waits for somebody to mend the installation."""

    id: uuid.UUID
    state: WorkState
    blocked: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many evaluations there are in each state, and how long the oldest due one has waited (seconds).

    `waits_for` says of evaluations, runs, batches and alerts how many wait for what.
    """

    by_state: Mapping[str, int]
    oldest_due_s: float | None
    waits_for: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Queries(Protocol):
    """Read-only questions. Each raises StoreUnavailable where the database is away."""

    def progress(self, evaluation_ids: Sequence[uuid.UUID]) -> Sequence[Progress]:
        """Where these evaluations stand; those that nobody knows are left out."""
        ...

    def evaluations(self, evaluation_ids: Sequence[uuid.UUID]) -> Sequence[EvaluationView]:
        """These evaluations, in the order asked for."""
        ...

    def calls(self, workspace_name: str, wanted: str) -> Sequence[CallView]:
        """The calls of a workspace whose id, `ref` or `external_id` is `wanted`: usually one, at most 20."""
        ...

    def backlog(self, left: Left) -> Backlog:
        """How much there is to do. What nothing is `left` for of a budget waits for that, also where it is due."""
        ...

    def models(self) -> Collection[str]:
        """The models that unfinished work and the rubrics that hold ask for."""
        ...
