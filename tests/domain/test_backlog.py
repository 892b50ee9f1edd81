from __future__ import annotations

import pytest

from qa_worker.domain.backlog import Standing, Via, batches_needed, lane_for, standing
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane, WorkState


@pytest.mark.parametrize(
    ("via", "judge", "lane"),
    [
        (Via.AUTO, JudgeKind.CLAUDE, Lane.BATCH),
        (Via.BATCH, JudgeKind.CLAUDE, Lane.BATCH),
        (Via.QUEUE, JudgeKind.CLAUDE, Lane.BACKLOG),
        (Via.AUTO, JudgeKind.RULES, Lane.BACKLOG),
        (Via.QUEUE, JudgeKind.RULES, Lane.BACKLOG),
    ],
)
def test_claude_has_batches_and_rules_have_none(via: Via, judge: JudgeKind, lane: Lane) -> None:
    assert lane_for(via, judge) is lane


def test_a_batch_of_the_rules_judge_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidInput, match="--via queue"):
        lane_for(Via.BATCH, JudgeKind.RULES)


@pytest.mark.parametrize(
    ("state", "lane", "expected"),
    [
        (None, None, Standing.NEW),
        (WorkState.PENDING, Lane.BATCH, Standing.THERE),
        (WorkState.PENDING, Lane.BACKLOG, Standing.MOVED),
        (WorkState.PENDING, Lane.LIVE, Standing.LIVE),
        (WorkState.PENDING, Lane.RUN, Standing.LIVE),
        (WorkState.QUEUED, Lane.BACKLOG, Standing.UNDER_WAY),
        (WorkState.RUNNING, Lane.BATCH, Standing.UNDER_WAY),
        (WorkState.DEAD, Lane.BATCH, Standing.DEAD),
    ],
)
def test_only_what_is_new_or_waits_in_another_lane_is_submitted(
    state: WorkState | None, lane: Lane | None, expected: Standing
) -> None:
    assert standing(state, lane, wanted=Lane.BATCH) is expected


def test_live_work_that_waits_is_moved_to_no_other_lane() -> None:
    assert standing(WorkState.PENDING, Lane.LIVE, wanted=Lane.BACKLOG) is Standing.LIVE


@pytest.mark.parametrize(
    ("requests", "body_bytes", "batches"),
    [(0, 0, 0), (1, 1, 1), (10, 100, 1), (11, 100, 2), (10, 101, 2), (5, 999, 10)],
)
def test_a_batch_is_full_by_its_requests_or_by_its_bytes(requests: int, body_bytes: int, batches: int) -> None:
    assert batches_needed(requests=requests, body_bytes=body_bytes, max_requests=10, max_bytes=100) == batches
