"""Choosing calls, saying what they cost, submitting them: on real PostgreSQL."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, select, update

from qa_worker.adapters.claude.sizes import StoredSizes
from qa_worker.adapters.postgres.backlog_queries import PostgresBacklogQueries
from qa_worker.adapters.postgres.tables import calls, evaluations, rubric_versions
from qa_worker.application.backlog_queries import compare
from qa_worker.application.batch_backlog import BatchLimits, Preview, Submitted, preview_backlog, submit_backlog
from qa_worker.application.ports import AttemptRecord, Claimed, Grading, NamedRubric, Wanted
from qa_worker.application.submit_call import submit_calls
from qa_worker.domain.backlog import Choice, Selection, Via
from qa_worker.domain.call import Agent
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evaluation import Usage, Verdict
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.verdict import decide
from qa_worker.domain.work import Lane
from qa_worker.messages import TaskName
from tests.builders import a_call, a_grading, a_rubric, a_transcript, an_assessment
from tests.conftest import Outbox, UnitsOfWork

pytestmark = pytest.mark.services

OLD = NamedRubric(a_rubric("response_quality"))
EVERY = Selection()


def store(uow: UnitsOfWork, *refs: str, workspace: str = "w", agent: str = "booking") -> None:
    """Calls that nobody has asked about."""
    made = [replace(a_call(ref), agent=Agent(id=agent, instructions="Be polite.")) for ref in refs]
    with uow() as work:
        work.calls.add_all(made, workspace_name=workspace)
        work.commit()


def grade(
    uow: UnitsOfWork, ref: str, *, rubric: NamedRubric | None = None, level: int = 5, workspace: str = "w"
) -> None:
    """A verdict for a call; under the rubric that holds for all unless another is given."""
    grading = a_grading()
    (accepted,) = submit_calls(
        [a_call(ref)], workspace_name=workspace, uow=uow, grading=grading, in_flight_limit=9, wanted=Wanted(rubric)
    )
    chosen = (rubric or grading.rubric).rubric
    answer = decide(an_assessment(level=level), rubric=chosen, transcript=a_transcript())
    with uow() as work:
        (claimed,) = work.evaluations.claim([accepted.evaluation_id], lease_s=60)  # type: ignore[union-attr] # no conflict
        assert isinstance(claimed, Claimed)
        record = AttemptRecord("done", datetime.now(UTC), Usage(output_tokens=400), "claude-haiku-5-5", 7)
        work.evaluations.finish(claimed.lease, claimed.key, answer, Evidence(), record)
        work.commit()


def preview(
    uow: UnitsOfWork,
    selection: Selection = EVERY,
    *,
    via: Via = Via.AUTO,
    grading: Grading | None = None,
    limits: BatchLimits | None = None,
) -> Preview:
    return preview_backlog(
        units=uow,
        grading=grading or a_grading(),
        selection=selection,
        via=via,
        sizer=StoredSizes(),
        limits=limits or BatchLimits(10_000, 10**8),
        today=datetime.now(UTC).date(),
    )


def submit(
    uow: UnitsOfWork,
    selection: Selection = EVERY,
    *,
    via: Via = Via.AUTO,
    limit: int | None = None,
    page_size: int = 500,
) -> Submitted:
    return submit_backlog(
        units=uow, grading=a_grading(), selection=selection, via=via, limit=limit, page_size=page_size
    )


def lanes(uow: UnitsOfWork) -> Counter[str]:
    with uow.engine.connect() as connection:
        pending = select(evaluations.c.lane).where(evaluations.c.state == "pending")
        return Counter(connection.execute(pending).scalars())


def test_calls_without_a_verdict_under_the_rubric_that_holds_are_chosen(uow: UnitsOfWork) -> None:
    store(uow, "never", "asked")
    grade(uow, "old", rubric=OLD)
    grade(uow, "current")

    found = preview(uow)

    (line,) = found.lines
    assert (line.calls, line.never_graded, line.graded_before) == (3, 2, 1)
    assert found.skipped == {"graded under the rubric version that holds": 1}
    assert submit(uow).by_lane == {Lane.BATCH: 3}
    assert lanes(uow) == {"batch": 3}


@pytest.mark.parametrize(("choice", "count"), [(Choice.ALL, 3), (Choice.MISSING, 2), (Choice.OLD_RUBRIC, 1)])
def test_calls_are_chosen_by_what_they_have(uow: UnitsOfWork, choice: Choice, count: int) -> None:
    store(uow, "never", "asked")
    grade(uow, "old", rubric=OLD)
    grade(uow, "current")

    assert preview(uow, Selection(choice=choice)).calls == count
    assert submit(uow, Selection(choice=choice)).calls == count


def test_a_rubric_that_changes_makes_every_verdict_an_old_one(uow: UnitsOfWork) -> None:
    grade(uow, "one")
    assert preview(uow).calls == 0
    with uow() as work:
        work.rubrics.set_default("w", OLD, agent_ref="booking")
        work.commit()

    (line,) = preview(uow).lines

    assert (line.calls, line.graded_before) == (1, 1)


def test_calls_are_chosen_by_workspace_agent_and_time(uow: UnitsOfWork) -> None:
    store(uow, "a", "b")
    store(uow, "c", agent="other")
    store(uow, "d", workspace="elsewhere")
    noon = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    with uow.engine.begin() as connection:
        for hours, ref in enumerate(("a", "b", "c", "d")):
            connection.execute(update(calls).where(calls.c.ref == ref).values(created_at=noon + timedelta(hours=hours)))

    def count(**chosen: object) -> int:
        return preview(uow, replace(EVERY, **chosen)).calls  # type: ignore[arg-type] # fields by their names

    assert count() == 4
    assert count(workspace="w") == 3
    assert count(agent="booking") == 3
    assert count(workspace="w", agent="booking") == 2
    assert count(since=noon + timedelta(hours=1)) == 3
    assert count(until=noon + timedelta(hours=1)) == 1
    assert submit(uow, Selection(workspace="w", since=noon + timedelta(hours=1))).calls == 2


def test_a_workspace_or_agent_that_nobody_knows_is_bad_input(uow: UnitsOfWork) -> None:
    store(uow, "a")
    for selection in (Selection(agent="nobody"), Selection(workspace="nowhere")):
        with pytest.raises(InvalidInput, match="Check its"):
            preview(uow, selection)
        with pytest.raises(InvalidInput, match="Check its"):
            submit(uow, selection)


def test_a_preview_makes_nothing(uow: UnitsOfWork) -> None:
    store(uow, "a")
    written: list[str] = []

    def note(*arguments: object) -> None:
        written.append(str(arguments[2]).split()[0])

    event.listen(uow.engine, "before_cursor_execute", note)
    try:
        preview(uow)
    finally:
        event.remove(uow.engine, "before_cursor_execute", note)

    assert set(written) <= {"SELECT", "WITH", "INSERT"}, "an insertion of a new version is rolled back"
    with uow.engine.connect() as connection:
        for table in (evaluations, rubric_versions):
            assert connection.execute(select(table)).all() == []


def test_a_preview_shows_tokens_and_costs_and_how_many_batches(uow: UnitsOfWork) -> None:
    store(uow, *(f"call-{number}" for number in range(7)))

    found = preview(uow, limits=BatchLimits(3, 10**8))

    (line,) = found.lines
    assert found.batches == 3
    assert 1500 < line.input_tokens / 7 < 2500
    assert line.output_tokens == 7 * 700
    assert line.batch_cost_micro_usd is not None
    assert line.queue_cost_micro_usd is not None
    # input x 0.10 + output x 0.50 dollars per million tokens; each call rounds on its own
    assert line.queue_cost_micro_usd == pytest.approx(line.input_tokens * 0.1 + line.output_tokens * 0.5, abs=7)
    assert line.batch_cost_micro_usd == pytest.approx(line.queue_cost_micro_usd / 2, abs=7)
    assert preview(uow, limits=BatchLimits(10, line.body_bytes // 2)).batches >= 2


def test_output_is_estimated_by_the_models_latest_answers(uow: UnitsOfWork) -> None:
    grade(uow, "before")
    store(uow, "one")

    (line,) = preview(uow).lines

    assert line.output_tokens == 400


def test_a_price_that_nobody_knows_is_unknown_and_not_nothing(uow: UnitsOfWork) -> None:
    store(uow, "one")

    (line,) = preview(uow, grading=replace(a_grading(), model="claude-haiku-9")).lines

    assert (line.batch_cost_micro_usd, line.queue_cost_micro_usd) == (None, None)


def test_the_rules_judge_has_no_batches_and_costs_nothing(uow: UnitsOfWork) -> None:
    store(uow, "one")
    rules = a_grading(judge=JudgeKind.RULES)

    (line,) = preview(uow, grading=rules).lines

    assert (line.lane, line.calls, line.queue_cost_micro_usd, line.input_tokens) == (Lane.BACKLOG, 1, 0, 0)
    with pytest.raises(InvalidInput, match="no batches"):
        preview(uow, via=Via.BATCH, grading=rules)


def test_through_the_queue_calls_take_the_backlog_lane(uow: UnitsOfWork) -> None:
    store(uow, "one")

    assert preview(uow, via=Via.QUEUE).batches == 0
    assert submit(uow, via=Via.QUEUE).by_lane == {Lane.BACKLOG: 1}
    assert lanes(uow) == {"backlog": 1}


def test_submitting_twice_changes_nothing(uow: UnitsOfWork) -> None:
    store(uow, "one", "two")
    submit(uow)

    again = submit(uow)

    assert (again.calls, again.skipped) == (0, {"waiting already": 2})
    assert lanes(uow) == {"batch": 2}


def test_what_waits_in_the_backlog_is_moved_and_live_calls_are_left_alone(uow: UnitsOfWork) -> None:
    def hand_over(ref: str, lane: Lane) -> None:
        submit_calls(
            [a_call(ref)], workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=0, wanted=Wanted(lane=lane)
        )

    hand_over("live", Lane.LIVE)
    hand_over("later", Lane.BACKLOG)
    found = preview(uow)
    assert (found.calls, found.skipped) == (1, {"waiting in the live lane": 1})

    submitted = submit(uow)
    assert (submitted.by_lane, lanes(uow)) == ({Lane.BATCH: 1}, {"live": 1, "batch": 1})
    assert submit(uow, via=Via.QUEUE).by_lane == {Lane.BACKLOG: 1}
    assert lanes(uow) == {"live": 1, "backlog": 1}


def test_what_is_under_way_or_was_given_up_on_is_left_alone_and_says_so(uow: UnitsOfWork) -> None:
    store(uow, "running", "dead", "new")
    submit(uow)
    with uow.engine.begin() as connection:
        for ref, values in (
            ("running", {"state": "queued"}),
            ("dead", {"state": "dead", "verdict": "not_evaluated"}),
        ):
            of_call = select(calls.c.id).where(calls.c.ref == ref).scalar_subquery()
            connection.execute(update(evaluations).where(evaluations.c.call_id == of_call).values(values))

    found = preview(uow)

    assert (found.calls, found.skipped) == (
        0,
        {"under way": 1, "given up on (qa-worker retry)": 1, "waiting already": 1},
    )


def test_pages_are_bounded_and_nothing_falls_between_them(uow: UnitsOfWork, outbox: Outbox) -> None:
    # Calls of one transaction were received at the same moment: the pages are told apart by the calls' ids.
    store(uow, *(f"call-{number}" for number in range(11)))

    assert preview(uow, limits=BatchLimits(9, 10**8, page_size=3)).calls == 11
    first = submit(uow, limit=5, page_size=3)
    assert (first.calls, first.more) == (6, True)
    assert [message.task for message in outbox.sent] == [TaskName.GRADE_BACKLOG]
    rest = submit(uow, limit=50, page_size=3)
    assert (rest.calls, rest.more, len(outbox.sent)) == (5, False, 1)
    assert lanes(uow) == {"batch": 11}


def test_every_agent_has_the_rubric_that_holds_for_it(uow: UnitsOfWork) -> None:
    store(uow, "a")
    store(uow, "b", agent="other")
    with uow() as work:
        work.rubrics.set_default("w", OLD, agent_ref="other")
        work.commit()

    submit(uow)

    assert len(preview(uow).lines) == 0
    with uow.engine.connect() as connection:
        assert len(connection.execute(select(evaluations.c.rubric_version_id).distinct()).all()) == 2


def test_conversations_of_scenario_runs_are_never_chosen(uow: UnitsOfWork) -> None:
    grade(uow, "run", rubric=OLD)
    grade(uow, "played", rubric=OLD)
    grade(uow, "played")
    with uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(lane="run"))
    store(uow, "call")

    assert (preview(uow).calls, preview(uow).skipped) == (1, {})
    assert submit(uow).calls == 1
    assert compare(queries=PostgresBacklogQueries(uow.engine), selection=EVERY, rubric=None, keep=1).graded == 0


# -- what changed


def test_old_evaluations_are_kept_and_the_changed_verdicts_are_shown(uow: UnitsOfWork) -> None:
    for ref in ("better", "same"):
        grade(uow, ref, rubric=OLD, level=2 if ref == "better" else 5)
        grade(uow, ref, level=5)
    grade(uow, "new")
    store(uow, "never")
    queries = PostgresBacklogQueries(uow.engine)

    changes = compare(queries=queries, selection=EVERY, rubric=None, keep=10)

    assert (changes.graded, changes.compared, changes.changed_count) == (3, 2, 1)
    (pair,) = changes.changed
    assert pair.before is not None
    assert (pair.call, pair.before.overall, pair.after.overall) == ("better", 25, 100)
    assert (pair.before.verdict, pair.after.verdict) == (Verdict.NEEDS_REVIEW, Verdict.PASS)
    assert pair.before.version != pair.after.version
    with uow.engine.connect() as connection:
        assert len(connection.execute(select(evaluations).where(evaluations.c.state == "done")).all()) == 5


def test_changes_are_chosen_by_workspace_agent_time_and_rubric(uow: UnitsOfWork) -> None:
    for workspace in ("w", "v"):
        grade(uow, "one", rubric=OLD, workspace=workspace)
        grade(uow, "one", workspace=workspace)
    queries = PostgresBacklogQueries(uow.engine)

    def count(rubric: str | None = None, **chosen: object) -> int:
        selection = replace(EVERY, **chosen)  # type: ignore[arg-type] # fields by their names
        return compare(queries=queries, selection=selection, rubric=rubric, keep=0).compared

    later = datetime.now(UTC) + timedelta(hours=1)
    assert (count(), count(workspace="w"), count(agent="booking"), count(agent="nobody")) == (2, 1, 2, 0)
    assert (count(since=later), count(until=later)) == (0, 2)
    assert (count("test rubric"), count("another")) == (2, 0)


def test_pages_of_changes_hold_every_call_once(uow: UnitsOfWork) -> None:
    for number in range(5):
        grade(uow, f"call-{number}")
    queries = PostgresBacklogQueries(uow.engine)
    seen: list[str] = []
    place = None
    while True:
        pairs, place = queries.pairs(EVERY, rubric=None, after=place, limit=2)
        seen += [pair.call for pair in pairs]
        if place is None:
            break

    assert sorted(seen) == [f"call-{number}" for number in range(5)]
