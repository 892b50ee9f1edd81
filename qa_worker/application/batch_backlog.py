"""Choose calls that have no verdict under the rubric version that holds for them, say what grading them costs, submit them.

Nothing is read whole: calls come in pages, sizes are counted by the database. What goes by batch waits in a lane of its
own, from which `advance_batches` takes it; the rest is sent by the dispatcher like any backlog.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from qa_worker import messages
from qa_worker.application._batch_steps import BatchUnit, BatchUnits
from qa_worker.application.batching import AgentKey, Candidate, Sizer
from qa_worker.application.ports import Grading, RubricVersion
from qa_worker.domain.backlog import (
    TO_DO,
    Choice,
    Selection,
    Standing,
    Via,
    batches_needed,
    lane_for,
    standing,
)
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.pricing import cost_micro_usd
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane

PAGE = 500
"""Calls of one transaction."""
_AGENTS = 100


@dataclass(slots=True)
class Line:
    """What one judge under one rubric would do. Costs are micro-dollars, None where the model's price isn't known."""

    rubric: str
    judge: JudgeKind
    model: str
    lane: Lane
    calls: int = 0
    never_graded: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    body_bytes: int = 0
    batch_cost_micro_usd: int | None = 0
    queue_cost_micro_usd: int | None = 0

    @property
    def graded_before(self) -> int:
        """Calls that have a verdict under an older rubric version."""
        return self.calls - self.never_graded


@dataclass(frozen=True, slots=True)
class Preview:
    """What submitting would do. `skipped` counts the other calls of the selection by why they are left alone."""

    lines: tuple[Line, ...]
    batches: int
    skipped: Mapping[str, int]

    @property
    def calls(self) -> int:
        """Calls that would be graded."""
        return sum(line.calls for line in self.lines)


@dataclass(slots=True)
class Submitted:
    """Calls that were submitted, by lane, and others by why they were left alone. `more`: the limit ended it."""

    by_lane: Counter[Lane] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    more: bool = False

    @property
    def calls(self) -> int:
        """All that were submitted."""
        return self.by_lane.total()


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch holds at most; and how many calls are looked at in one transaction."""

    max_requests: int
    max_bytes: int
    page_size: int = PAGE


def preview_backlog(
    *,
    units: BatchUnits,
    grading: Grading,
    selection: Selection,
    via: Via,
    sizer: Sizer,
    limits: BatchLimits,
    today: date,
) -> Preview:
    """What submitting would make, take and cost. Nothing is made.

    Tokens are estimated from stored sizes (see `Sizer`) and nothing is taken to be cached, so the real cost is rather
    lower. Raises InvalidInput, StoreUnavailable.
    """
    lines: dict[tuple[str, JudgeKind, str, Lane], Line] = {}
    skipped: Counter[str] = Counter()
    means: dict[str, int | None] = {}
    for agent, version, lane in _graders(units, grading, selection, via):
        judge = version.judge
        key = (version.rubric.name, judge.kind, judge.model, lane)
        line = lines.setdefault(key, Line(*key))
        with units() as work:
            every = work.backlog.count(agent, selection)
            if judge.kind is JudgeKind.CLAUDE and judge.model not in means:
                means[judge.model] = work.backlog.mean_output(judge.model)
        for page in _pages(units, agent, version, selection, limits.page_size):
            every -= len(page)
            for one in page:
                stands = standing(one.state, one.lane, wanted=lane)
                if stands in TO_DO:
                    _count(line, one, version, sizer, means.get(judge.model), today)
                else:
                    skipped[stands.value] += 1
        skipped[_others(selection.choice)] += every
    kept = tuple(line for line in lines.values() if line.calls)
    return Preview(kept, _batches(kept, limits), {why: count for why, count in skipped.items() if count})


def _batches(lines: Iterable[Line], limits: BatchLimits) -> int:
    """A batch holds requests of one model."""
    requests: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for line in lines:
        if line.lane is Lane.BATCH:
            requests[line.model] += line.calls
            size[line.model] += line.body_bytes
    return sum(
        batches_needed(
            requests=count, body_bytes=size[model], max_requests=limits.max_requests, max_bytes=limits.max_bytes
        )
        for model, count in requests.items()
    )


def submit_backlog(
    *,
    units: BatchUnits,
    grading: Grading,
    selection: Selection,
    via: Via,
    limit: int | None = None,
    page_size: int = PAGE,
) -> Submitted:
    """Ask for the evaluations of the chosen calls, in transactions of at most `page_size` of them.

    Doing it again changes nothing. After `limit` calls it stops, and sends a message that goes on. What is pending in
    another lane is moved, unless that is the live one. Raises InvalidInput, StoreUnavailable; what was committed stays.
    """
    done = Submitted()
    for agent, _, lane in _graders(units, grading, selection, via):
        place = None
        while True:
            with units() as work:
                version = _version(work, agent, grading)
                page = work.backlog.candidates(agent, version.id, selection, after=place, limit=page_size, sized=False)
                _submit(work, page, version, lane, grading, done)
                done.more = limit is not None and done.calls >= limit
                if done.more:
                    work.nudge(messages.grade_backlog())
                work.commit()
            if done.more:
                return done
            if len(page) < page_size:
                break
            place = page[-1].place
    return done


def _submit(
    work: BatchUnit,
    page: Sequence[Candidate],
    version: RubricVersion,
    lane: Lane,
    grading: Grading,
    done: Submitted,
) -> None:
    by_standing: dict[Standing, list[Candidate]] = {}
    for one in page:
        by_standing.setdefault(standing(one.state, one.lane, wanted=lane), []).append(one)
    new = by_standing.get(Standing.NEW, [])
    work.evaluations.ensure_all([(one.call, version) for one in new], lane=lane, max_attempts=grading.max_attempts)
    moved = [one.evaluation_id for one in by_standing.get(Standing.MOVED, []) if one.evaluation_id is not None]
    done.by_lane[lane] += len(new) + (work.backlog.move(moved, lane) if moved else 0)
    for stands, ones in by_standing.items():
        if stands not in TO_DO:
            done.skipped[stands.value] += len(ones)


def _graders(
    units: BatchUnits, grading: Grading, selection: Selection, via: Via
) -> Iterator[tuple[AgentKey, RubricVersion, Lane]]:
    """Each agent of the selection with the rubric version that holds for its calls, and the lane that they take."""
    after: uuid.UUID | None = None
    while True:
        with units() as work:
            agents = work.backlog.agents(selection, after=after, limit=_AGENTS)
            # Never committed: a version that is new is stored with the first evaluation under it.
            versions = [_version(work, agent, grading) for agent in agents]
        if after is None and not agents and (selection.agent or selection.workspace):
            _nobody(selection)
        for agent, version in zip(agents, versions, strict=True):
            yield agent, version, lane_for(via, version.judge.kind)
        if len(agents) < _AGENTS:
            return
        after = agents[-1].id


def _nobody(selection: Selection) -> None:
    if selection.agent:
        raise InvalidInput("--agent", f"no call of an agent {selection.agent!r} was handed over", "Check its id.")
    raise InvalidInput("--workspace", f"there is no call in workspace {selection.workspace!r}", "Check its name.")


def _version(work: BatchUnit, agent: AgentKey, grading: Grading) -> RubricVersion:
    chosen = work.rubrics.default_for(agent.workspace, agent.id) or grading.rubric
    return work.rubrics.version(agent.workspace, chosen, grading.spec(chosen, None))


def _pages(
    units: BatchUnits, agent: AgentKey, version: RubricVersion, selection: Selection, page_size: int
) -> Iterator[Sequence[Candidate]]:
    place = None
    while True:
        with units() as work:
            page = work.backlog.candidates(agent, version.id, selection, after=place, limit=page_size, sized=True)
        yield page
        if len(page) < page_size:
            return
        place = page[-1].place


def _count(
    line: Line, one: Candidate, version: RubricVersion, sizer: Sizer, mean_output: int | None, today: date
) -> None:
    line.calls += 1
    line.never_graded += not one.graded_before
    if line.judge is not JudgeKind.CLAUDE or one.size is None:
        return
    guess = sizer.estimate(version, one.size, mean_output=mean_output)
    line.input_tokens += guess.input_tokens
    line.output_tokens += guess.output_tokens
    line.body_bytes += guess.body_bytes
    usage = Usage(input_tokens=guess.input_tokens, output_tokens=guess.output_tokens)
    for batch in (True, False):
        name = "batch_cost_micro_usd" if batch else "queue_cost_micro_usd"
        cost, so_far = cost_micro_usd(usage, model=line.model, at=today, batch=batch), getattr(line, name)
        setattr(line, name, None if cost is None or so_far is None else so_far + cost)


def _others(choice: Choice) -> str:
    graded = "graded under the rubric version that holds"
    return graded if choice is Choice.ALL else f"{graded}, or not of this choice"
