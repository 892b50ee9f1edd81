"""What leaves for the workers, and what stays in its row untouched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.pool import QueuePool

from qa_worker.adapters.postgres.tables import evaluations, rubric_versions, workspaces
from qa_worker.application.dispatch_work import dispatch_work
from qa_worker.application.ports import JudgeOverrides, NamedRubric, Wanted
from qa_worker.application.purse import UNCAPPED, Left
from qa_worker.application.submit_call import submit_calls
from qa_worker.domain.call import workspace_id
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Message
from tests.builders import a_call, a_grading, a_rubric
from tests.conftest import Outbox, UnitsOfWork
from tests.fakes import NoPace

pytestmark = pytest.mark.services

HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"
ON_OPUS = Wanted(rubric=NamedRubric(a_rubric(threshold=60), JudgeOverrides(model=OPUS)))
BY_RULES = Wanted(judge=JudgeKind.RULES)


@dataclass
class APace:
    """Room by model; asked while no transaction is open."""

    rooms: dict[str, int]
    engine: Engine
    asked: list[set[str]] = field(default_factory=list)

    def room(self, models: Collection[str]) -> Mapping[str, int]:
        assert isinstance(self.engine.pool, QueuePool)
        assert self.engine.pool.checkedout() == 0, "a connection is held while Redis is waited for"
        self.asked.append(set(models))
        return {model: room for model, room in self.rooms.items() if model in models}


def _submit(uow: UnitsOfWork, *refs: str, wanted: Wanted | None = None, workspace: str = "w") -> None:
    submit_calls(
        [a_call(ref) for ref in refs],
        workspace_name=workspace,
        uow=uow,
        grading=a_grading(),
        in_flight_limit=0,
        wanted=wanted or Wanted(),
    )


def _many(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def _dispatch(uow: UnitsOfWork, rooms: dict[str, int], *, limit: int = 100, left: Left = UNCAPPED) -> int:
    return dispatch_work(uow=uow, pace=APace(rooms, uow.engine), left=lambda: left, in_flight_limit=limit)


def _queued_of(uow: UnitsOfWork) -> dict[str, int]:
    counted = (
        select(workspaces.c.name, func.count().label("n"))
        .join(evaluations, evaluations.c.workspace_id == workspaces.c.id)
        .where(evaluations.c.state == "queued")
        .group_by(workspaces.c.name)
    )
    with uow.engine.connect() as connection:
        return {row.name: row.n for row in connection.execute(counted)}


def _queued(uow: UnitsOfWork) -> dict[str, int]:
    counted = (
        select(rubric_versions.c.model, func.count().label("n"))
        .join(evaluations, evaluations.c.rubric_version_id == rubric_versions.c.id)
        .where(evaluations.c.state == "queued")
        .group_by(rubric_versions.c.model)
    )
    with uow.engine.connect() as connection:
        return {row.model: row.n for row in connection.execute(counted)}


def _ids(messages: list[Message]) -> int:
    return sum(len(message.kwargs.get("evaluation_ids", ["one"])) for message in messages)


def test_no_more_is_sent_than_can_leave(uow: UnitsOfWork, outbox: Outbox) -> None:
    _submit(uow, *_many("call", 20))

    assert _dispatch(uow, {HAIKU: 7}) == 7
    assert _ids(outbox.sent) == 7


def test_what_was_just_sent_and_not_begun_takes_room(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("call", 20))
    _dispatch(uow, {HAIKU: 7})

    assert _dispatch(uow, {HAIKU: 7}) == 0
    assert _dispatch(uow, {HAIKU: 9}) == 2


def test_a_message_that_was_lost_holds_nothing_back_for_long(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("call", 20))
    _dispatch(uow, {HAIKU: 7})
    with uow.engine.begin() as connection:
        long_ago = func.now() - text("'20 s'::interval")
        connection.execute(update(evaluations).where(evaluations.c.state == "queued").values(queued_at=long_ago))

    assert _dispatch(uow, {HAIKU: 7}) == 7


def test_a_closed_gate_holds_back_only_what_needs_claude(uow: UnitsOfWork) -> None:
    """However much of it lies before the others in the same workspace."""
    _submit(uow, *_many("claude", 30))
    _submit(uow, *_many("rules", 3), wanted=BY_RULES)

    assert _dispatch(uow, {HAIKU: 0}) == 3
    assert _queued(uow) == {"": 3}


def test_each_model_has_its_own_room(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("haiku", 30))
    _submit(uow, *_many("opus", 30), wanted=ON_OPUS)

    assert _dispatch(uow, {HAIKU: 2, OPUS: 11}) == 13
    assert _queued(uow) == {HAIKU: 2, OPUS: 11}


@pytest.mark.parametrize(
    "left",
    [
        Left(of={workspace_id("large"): 0}),
        Left(each=0, of={workspace_id("small"): 7}),
        Left(each=9, of={workspace_id("large"): -3}),
    ],
)
def test_who_has_spent_his_budget_takes_nobodys_turn_and_is_not_touched(uow: UnitsOfWork, left: Left) -> None:
    _submit(uow, *_many("large", 40), workspace="large")
    _submit(uow, *_many("rules", 2), workspace="large", wanted=BY_RULES)
    _submit(uow, *_many("small", 40), workspace="small")

    assert _dispatch(uow, {HAIKU: 10}, left=left) == 12

    assert _queued_of(uow) == {"large": 2, "small": 10}
    assert _queued(uow) == {HAIKU: 10, "": 2}
    assert _dispatch(uow, {HAIKU: 20}, left=UNCAPPED) == 10


def test_when_everybodys_budget_is_spent_only_what_costs_nothing_is_sent(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("claude", 9))
    _submit(uow, *_many("backlog", 9), wanted=Wanted(lane=Lane.BACKLOG))
    _submit(uow, *_many("rules", 3), wanted=BY_RULES)

    assert _dispatch(uow, {}, left=Left(overall=0)) == 3
    assert _queued(uow) == {"": 3}


def test_live_calls_have_the_room_before_the_backlog(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("old", 10), wanted=Wanted(lane=Lane.BACKLOG))
    _submit(uow, *_many("live", 4))

    _dispatch(uow, {HAIKU: 6})

    with uow.engine.connect() as connection:
        lanes = connection.execute(select(evaluations.c.lane).where(evaluations.c.state == "queued")).scalars()
        assert sorted(lanes) == ["backlog"] * 2 + ["live"] * 4


def test_workspaces_take_turns_in_the_room_of_a_model(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("large", 40), workspace="large")
    _submit(uow, *_many("large-opus", 40), workspace="large", wanted=ON_OPUS)
    _submit(uow, "one", "two", workspace="small")

    _dispatch(uow, {HAIKU: 5, OPUS: 1})

    with uow.engine.connect() as connection:
        counted = select(func.count()).where(evaluations.c.state == "queued").group_by(evaluations.c.workspace_id)
        assert sorted(connection.execute(counted).scalars()) == [2, 4]


def test_the_limit_of_work_in_flight_holds_whatever_the_pace(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("call", 20))

    assert _dispatch(uow, {HAIKU: 99}, limit=4) == 4
    assert _dispatch(uow, {HAIKU: 99}, limit=4) == 0
    assert _dispatch(uow, {}, limit=6) == 2


def test_what_is_left_to_message_batches_is_never_sent(uow: UnitsOfWork) -> None:
    _submit(uow, "one", "two")
    with uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(lane=Lane.BATCH.value))

    assert _dispatch(uow, {}) == 0


def test_what_a_batch_holds_takes_no_room_from_the_workers(uow: UnitsOfWork) -> None:
    _submit(uow, *_many("batched", 5))
    with uow.engine.begin() as connection:
        held = {"lane": Lane.BATCH.value, "state": "running", "lease_token": func.gen_random_uuid()}
        connection.execute(update(evaluations).values(lease_until=func.now(), **held))
    _submit(uow, *_many("live", 5))

    assert _dispatch(uow, {HAIKU: 3}, limit=4) == 3


def test_a_few_rows_of_everybody_are_as_good_as_all_of_them(uow: UnitsOfWork) -> None:
    """However unevenly the due work lies: the room is filled."""
    for number in range(12):
        _submit(uow, "one", workspace=f"small-{number}")
    _submit(uow, *_many("call", 60), workspace="large")

    assert _dispatch(uow, {}, limit=50) == 50


def test_only_models_that_something_waits_for_are_asked_about(uow: UnitsOfWork) -> None:
    pace = APace({}, uow.engine)
    assert dispatch_work(uow=uow, pace=pace, left=Left, in_flight_limit=10) == 0
    assert pace.asked == []

    _submit(uow, "one", wanted=BY_RULES)
    _submit(uow, "two", wanted=replace(ON_OPUS, lane=Lane.BACKLOG))
    dispatch_work(uow=uow, pace=pace, left=Left, in_flight_limit=10)
    assert pace.asked == [{OPUS}]


def test_of_two_dispatchers_at_once_one_sends(uow: UnitsOfWork) -> None:
    _submit(uow, "one", "two")

    with uow() as work:
        assert work.evaluations.begin_dispatch() is not None
        assert dispatch_work(uow=uow, pace=NoPace(), left=Left, in_flight_limit=10) == 0
        work.commit()
    assert _dispatch(uow, {}) == 2
