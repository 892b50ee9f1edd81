"""The port through which calls are graded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from qa_worker.domain.call import Call
from qa_worker.domain.evaluation import Assessment, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure
from qa_worker.domain.rubric import JudgeSpec, Rubric


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One call to grade. `key` is the workspace's id: limits and costs are accounted to it.

    `can_wait`: a backlog, or the flood of one workspace, which leaves the last of the room to others' live calls.
    """

    call: Call
    rubric: Rubric
    evidence: Evidence
    spec: JudgeSpec
    key: str
    can_wait: bool = False


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The provider's limits as an answer's headers tell them: per minute, and what was left; None where they don't."""

    requests: int | None = None
    requests_left: int | None = None
    input_tokens: int | None = None
    input_tokens_left: int | None = None
    output_tokens: int | None = None
    output_tokens_left: int | None = None


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """What came of it: an assessment, or the failure that prevented one.

    `usage` counts whatever was billed, also where the answer couldn't be used. `model` is the one that answered.
    `raw` is the answer's text where that text was refused, cut or unreadable, and empty otherwise. `limits` is what the
    provider said of its limits, where it said anything. `batch`: it came through the batch API, and costs half.
    `usages`: where several requests were made for it, what was billed for each of them; `usage` is then their sum. A
    price is that of one request: the length of its prompt chooses the band.
    """

    result: Assessment | Failure
    usage: Usage
    model: str
    request_id: str | None
    raw: str
    limits: RateLimits | None = None
    batch: bool = False
    usages: tuple[Usage, ...] = ()


class Judge(Protocol):
    """Grades calls."""

    def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """The judge's answer; faults of the provider are a `Failure` in it, never an exception."""
        ...

    def grade_each(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[int, JudgeAnswer | Exception]]:
        """All of them at the same time: each answer with the number of its request, as they come.

        An exception stands for a fault of ours in one of them; the others go on.
        """
        ...


class AsyncJudge(Protocol):
    """Grades calls on an event loop: hundreds wait at once for the price of one thread."""

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """The judge's answer; faults of the provider are a `Failure` in it, never an exception."""
        ...
