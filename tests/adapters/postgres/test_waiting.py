"""What `qa-worker status` says of work that waits."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, insert, text, update

from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.tables import batches, deliveries, evaluations, rubric_versions, runs
from qa_worker.application.playing import AgentKind
from qa_worker.application.ports import JudgeOverrides, NamedRubric, Wanted
from qa_worker.application.purse import Left
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.call import workspace_id
from qa_worker.domain.rubric import JudgeKind
from tests.builders import a_call, a_grading, a_rubric
from tests.conftest import UnitsOfWork
from tests.post import Post
from tests.running import Stage

pytestmark = pytest.mark.services


def test_everything_that_waits_says_what_for_whether_it_is_due_or_not(uow: UnitsOfWork) -> None:
    made = [a_call(f"call-{number}") for number in range(6)]
    answers = submit_calls(made, workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=0)
    ids = [answer.evaluation_id for answer in answers if isinstance(answer, Accepted)]
    later, earlier = func.now() + text("'60 s'::interval"), func.now() - text("'60 s'::interval")
    with uow.engine.begin() as connection:
        for chosen, values in (
            (ids[0:1], {"wait_reason": "budget_spent", "not_before": later}),
            (ids[1:3], {"wait_reason": "breaker_open", "not_before": earlier}),
            (ids[3:4], {"lane": "batch"}),
        ):
            connection.execute(update(evaluations).where(evaluations.c.id.in_(chosen)).values(**values))

    backlog = PostgresQueries(uow.engine).backlog(Left())

    reasons = {"budget_spent": 1, "breaker_open": 2, "a message batch": 1, "their turn": 2}
    assert backlog.waits_for == {"evaluations": reasons}
    assert backlog.by_state == {"pending": 6}


def test_runs_that_wait_say_what_for(uow: UnitsOfWork) -> None:
    stage = Stage(uow)
    first, *_ = stage.runs(stage.start(repeats=3, max_parallel=1))
    with uow.engine.begin() as connection:
        parked = {"state": "pending", "wait_reason": "breaker_open"}
        connection.execute(update(runs).where(runs.c.id == first.id).values(**parked))

    waits_for = PostgresQueries(uow.engine).backlog(Left()).waits_for

    assert waits_for == {"runs": {"breaker_open": 1, "their turn": 2}}


def test_batches_that_wait_say_what_for(uow: UnitsOfWork) -> None:
    with uow.engine.begin() as connection:
        for state, code in (("in_progress", ""), ("in_progress", "http_529"), ("ended", ""), ("collected", "http_400")):
            values = {"id": uuid.uuid4(), "model": "m", "state": state, "error_code": code}
            connection.execute(insert(batches).values(provider_id=str(values["id"]), **values))

    waits_for = PostgresQueries(uow.engine).backlog(Left()).waits_for

    assert waits_for == {"batches": {"the provider": 1, "http_529": 1, "their turn": 1}}


def test_alerts_that_wait_say_what_for(uow: UnitsOfWork) -> None:
    post = Post(uow)
    post.alert(post.endpoint())
    post.change(deliveries, state="pending", wait_reason="http_503")

    waits_for = PostgresQueries(uow.engine).backlog(Left()).waits_for

    assert waits_for == {"alerts": {"http_503": 1}}


def test_every_model_that_unfinished_work_or_a_rubric_that_holds_asks_for_is_known(uow: UnitsOfWork) -> None:
    def rubric(model: str) -> NamedRubric:
        return NamedRubric(replace(a_rubric(), name=model), JudgeOverrides(model=model))

    for number, model in enumerate(("of-pending", "of-queued", "of-done")):
        wanted, room = Wanted(rubric=rubric(model)), 0 if model == "of-pending" else 9
        submit_calls(
            [a_call(f"call-{number}")],
            workspace_name="w",
            uow=uow,
            grading=a_grading(),
            in_flight_limit=room,
            wanted=wanted,
        )
    with uow() as work:
        work.rubrics.set_default("w", rubric("of-default"), agent_ref=None)
        work.commit()
    Stage(uow).start(kind=AgentKind.CLAUDE, settings={"model": "of-agent"})
    with uow.engine.begin() as connection:
        done = rubric_versions.c.id == evaluations.c.rubric_version_id
        connection.execute(
            update(evaluations).where(done, rubric_versions.c.model == "of-done").values(state="done", verdict="pass")
        )

    models = PostgresQueries(uow.engine).models()

    assert set(models) == {"of-pending", "of-queued", "of-default", "of-agent"}


def test_what_is_due_and_waits_for_a_spent_budget_says_so_whether_it_was_ever_sent_or_not(uow: UnitsOfWork) -> None:
    def submit(workspace: str, *refs: str, **how: Any) -> list[uuid.UUID]:
        made = [a_call(ref) for ref in refs]
        answers = submit_calls(made, workspace_name=workspace, uow=uow, grading=a_grading(), in_flight_limit=0, **how)
        return [answer.evaluation_id for answer in answers if isinstance(answer, Accepted)]

    (parked, broken, *_) = submit("spent", "parked", "broken", "never sent")
    submit("spent", "by rules", wanted=Wanted(judge=JudgeKind.RULES))
    (stale, *_) = submit("other", "parked before", "new")
    earlier, long_ago = func.now() - text("'60 s'::interval"), func.now() - text("'9 hours'::interval")
    with uow.engine.begin() as connection:
        for one, reason, since in (
            (parked, "budget_spent", long_ago),
            (broken, "breaker_open", long_ago),
            (stale, "budget_spent", earlier),
        ):
            waits = {"wait_reason": reason, "not_before": since}
            connection.execute(update(evaluations).where(evaluations.c.id == one).values(**waits))

    backlog = PostgresQueries(uow.engine).backlog(Left(of={workspace_id("spent"): 0}))

    assert backlog.waits_for == {"evaluations": {"budget_spent": 3, "their turn": 3}}
    assert backlog.oldest_due_s is not None
    assert 60 <= backlog.oldest_due_s < 3600, "what nothing is left for could not have been graded by now"
