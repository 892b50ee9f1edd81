"""Claims, leases and results on real PostgreSQL, with real concurrency."""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, update

from qa_worker.adapters.postgres.leases import LeaseKeeper
from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.records import GroupedRecords, Write
from qa_worker.adapters.postgres.tables import attempts, calls, evaluations, workspaces
from qa_worker.application.ports import Added, AttemptRecord, Claimed, NamedRubric, Room, Wanted
from qa_worker.application.purse import Left
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.call import Agent
from qa_worker.domain.errors import CallConflict, StoreUnavailable
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.verdict import decide
from qa_worker.domain.work import Lane, WorkState
from tests.builders import a_call, a_grading, a_rubric, a_transcript, an_assessment
from tests.conftest import Outbox, UnitsOfWork

pytestmark = pytest.mark.services

NOTHING = Usage()


def _submit(uow: UnitsOfWork, *refs: str, limit: int = 100, wanted: Wanted | None = None) -> list[Accepted]:
    answers = submit_calls(
        [a_call(ref) for ref in refs],
        workspace_name="default",
        uow=uow,
        grading=a_grading(),
        in_flight_limit=limit,
        wanted=wanted or Wanted(),
    )
    return [answer for answer in answers if isinstance(answer, Accepted)]


def _claim(uow: UnitsOfWork, evaluation_id: uuid.UUID, *, lease_s: float = 60) -> Claimed | None:
    with uow() as work:
        claimed = work.evaluations.claim([evaluation_id], lease_s=lease_s)
        work.commit()
    if not claimed:
        return None
    assert isinstance(claimed[0], Claimed)
    return claimed[0]


def _finish(uow: UnitsOfWork, claimed: Claimed, *, cost: int | None = 7) -> None:
    answer = decide(an_assessment(), rubric=a_rubric(), transcript=a_transcript())
    record = AttemptRecord("done", datetime.now(UTC), Usage(input_tokens=10), "m", cost)
    with uow() as work:
        work.evaluations.finish(claimed.lease, claimed.key, answer, Evidence(), record)
        work.commit()


def _make_due(uow: UnitsOfWork) -> None:
    with uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(not_before=func.now()))


def _state(uow: UnitsOfWork, evaluation_id: uuid.UUID) -> WorkState:
    with uow() as work:
        status = work.evaluations.status(evaluation_id)
    assert status is not None
    return status.state


def test_of_many_workers_on_one_call_exactly_one_gets_it(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    together = threading.Barrier(8)

    def claim(_: int) -> Claimed | None:
        together.wait()
        return _claim(uow, accepted.evaluation_id)

    with ThreadPoolExecutor(8) as pool:
        leases = [lease for lease in pool.map(claim, range(8)) if lease is not None]

    assert len(leases) == 1


def test_a_call_handed_over_twice_is_one_call_and_one_evaluation(uow: UnitsOfWork, outbox: Outbox) -> None:
    (first,) = _submit(uow, "one")
    (second,) = _submit(uow, "one")

    assert (first.created, second.created) == (True, False)
    assert first.evaluation_id == second.evaluation_id
    assert len(outbox.sent) == 1


def test_the_same_id_with_another_content_is_refused_and_the_others_are_accepted(uow: UnitsOfWork) -> None:
    _submit(uow, "one")
    changed = a_call("one", transcript=a_transcript(("agent", "Hello?"), ("caller", "Wrong number.")))

    answers = submit_calls(
        [changed, a_call("two")], workspace_name="default", uow=uow, grading=a_grading(), in_flight_limit=10
    )

    assert isinstance(answers[0], CallConflict)
    assert isinstance(answers[1], Accepted)


def test_of_two_calls_with_one_id_in_a_batch_the_first_is_made(uow: UnitsOfWork) -> None:
    other = a_call("one", transcript=a_transcript(("agent", "Hello?"), ("caller", "Wrong number.")))

    first, again, conflict = submit_calls(
        [a_call("one"), a_call("one"), other], workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=10
    )

    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert (first.created, again.created) == (True, False)
    assert first.evaluation_id == again.evaluation_id
    assert isinstance(conflict, CallConflict)


def test_the_same_id_in_another_workspace_is_another_call(uow: UnitsOfWork) -> None:
    (ours,) = _submit(uow, "one")

    (theirs,) = submit_calls([a_call("one")], workspace_name="b", uow=uow, grading=a_grading(), in_flight_limit=10)

    assert isinstance(theirs, Accepted)
    assert theirs.call_id != ours.call_id


def test_many_producers_of_the_same_calls_make_each_once(uow: UnitsOfWork) -> None:
    refs = [f"call-{number}" for number in range(10)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: _submit(uow, *refs), range(4)))

    created = [accepted.ref for batch in answers for accepted in batch if accepted.created]
    assert sorted(created) == sorted(refs)


def test_submissions_beyond_the_limit_stay_pending_and_are_sent_by_the_dispatcher(
    uow: UnitsOfWork, outbox: Outbox
) -> None:
    accepted = _submit(uow, "a", "b", "c", limit=2)
    assert len(outbox.sent) == 2

    lease = _claim(uow, accepted[0].evaluation_id)
    assert lease is not None
    _finish(uow, lease)
    with uow() as work:
        due = work.evaluations.due(Room(live=1, backlog=1), batch=10)
        work.commit()

    assert [ref.evaluation_id for ref in due] == [accepted[2].evaluation_id]


def test_live_calls_are_dispatched_before_the_backlog(uow: UnitsOfWork) -> None:
    _submit(uow, "old", limit=1)
    _submit(uow, "backlog", limit=1, wanted=Wanted(lane=Lane.BACKLOG))
    (live,) = _submit(uow, "live", limit=1)

    with uow() as work:
        due = work.evaluations.due(Room(live=1, backlog=1), batch=10)
        work.commit()

    assert [ref.call_id for ref in due] == [live.call_id]


def test_workspaces_take_turns_however_long_ones_backlog_is(uow: UnitsOfWork) -> None:
    def submit(workspace: str, *refs: str) -> None:
        made = [a_call(ref) for ref in refs]
        submit_calls(made, workspace_name=workspace, uow=uow, grading=a_grading(), in_flight_limit=0)

    submit("large", *(f"call-{number}" for number in range(40)))
    submit("small", "one", "two")
    submit("tiny", "one")

    with uow() as work:
        due = [ref.evaluation_id for ref in work.evaluations.due(Room(live=6, backlog=6), batch=6)]
        work.commit()

    with uow.engine.connect() as connection:
        chosen = select(workspaces.c.name).join(evaluations).where(evaluations.c.id.in_(due))
        names = sorted(connection.execute(chosen).scalars())
    assert names == ["large", "large", "large", "small", "small", "tiny"]


def test_messages_that_still_wait_in_the_broker_are_not_sent_again(uow: UnitsOfWork) -> None:
    _submit(uow, "one", "two", "three")
    time.sleep(0.1)

    with uow() as work:
        assert list(work.evaluations.unsent(older_than_s=0.05, waiting=3, limit=10)) == []
        assert len(work.evaluations.unsent(older_than_s=0.05, waiting=2, limit=10)) == 1
        work.commit()


def test_producers_of_the_same_new_calls_in_any_order_never_block_each_other_for_good(uow: UnitsOfWork) -> None:
    """Each with agents that nobody has seen, in an order of its own."""
    made = [
        replace(a_call(f"call-{number}"), agent=Agent(id=f"agent-{number % 7}", instructions="x"))
        for number in range(40)
    ]

    def submit(seed: int) -> int:
        mixed = made[:]
        random.Random(seed).shuffle(mixed)  # noqa: S311 - an order, no secret
        answers = submit_calls(mixed, workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=100)
        return len(answers)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(submit, range(12))) == [40] * 12


def test_an_older_evaluation_that_ends_late_is_not_the_current_one(uow: UnitsOfWork) -> None:
    (older,) = _submit(uow, "one")
    (newer,) = _submit(uow, "one", wanted=Wanted(rubric=NamedRubric(a_rubric("compliance"))))
    for accepted in (newer, older):
        claimed = _claim(uow, accepted.evaluation_id)
        assert claimed is not None
        _finish(uow, claimed)

    views = PostgresQueries(uow.engine).evaluations([older.evaluation_id, newer.evaluation_id])
    assert [view.is_current for view in views] == [False, True]


def test_a_result_that_was_committed_without_our_knowing_is_written_once(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    claimed = _claim(uow, accepted.evaluation_id)
    assert claimed is not None

    _finish(uow, claimed)
    _finish(uow, claimed)

    (view,) = PostgresQueries(uow.engine).evaluations([accepted.evaluation_id])
    assert (len(view.attempts), view.cost_micro_usd, len(view.scores)) == (1, 7, 4)


def test_what_was_held_back_a_hundred_times_has_one_row_that_tells_of_it(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")

    def park(code: str, *, usage: Usage = NOTHING, kind: FailureKind = FailureKind.HELD) -> AttemptRecord:
        failure = Failure(kind, code, f"Again: {code}", retry_after_s=0)
        return AttemptRecord("parked", datetime.now(UTC), usage, "m", usage.output_tokens, None, failure)

    again = [park("budget_spent")] * 3 + [park("breaker_open")] + [park("budget_spent")] * 2
    paid = [park("borderline", usage=Usage(output_tokens=5))] * 2
    asked = [park("http_429", kind=FailureKind.RATE_LIMITED)] * 2
    for record in (*again, *paid, *asked):
        claimed = _claim(uow, accepted.evaluation_id)
        assert claimed is not None
        for _ in range(2):  # the second time as after a commit whose answer was lost
            with uow() as work:
                work.evaluations.wait(claimed.lease, wait_s=-1, reason="x", counts=False, record=record)
                work.commit()

    (view,) = PostgresQueries(uow.engine).evaluations([accepted.evaluation_id])
    codes = [attempt.error_code for attempt in view.attempts]
    assert codes == ["breaker_open", "budget_spent", "borderline", "borderline", "http_429", "http_429"]
    assert (view.attempt, view.cost_micro_usd) == (0, 10)
    with uow.engine.connect() as connection:
        assert connection.execute(select(evaluations.c.park_count)).scalar_one() == 10


def test_an_evaluation_of_another_call_is_not_claimed(uow: UnitsOfWork) -> None:
    ours, theirs = _submit(uow, "one", "two")

    with uow() as work:
        assert list(work.evaluations.claim([theirs.evaluation_id], lease_s=60, of_calls=[ours.call_id])) == []
        work.commit()
    assert _state(uow, theirs.evaluation_id) is WorkState.QUEUED


def test_what_was_given_up_on_begins_anew_with_all_attempts(uow: UnitsOfWork) -> None:
    dead, other = _submit(uow, "one", "two")
    claimed = _claim(uow, dead.evaluation_id)
    assert claimed is not None
    failure = Failure(FailureKind.REJECTED, "http_400", "No.")
    record = AttemptRecord("dead", datetime.now(UTC), Usage(), "m", 0, None, failure)
    with uow() as work:
        work.evaluations.bury(claimed.lease, evidence=None, record=record)
        work.commit()

    with uow() as work:
        revived = work.evaluations.revive([dead.call_id, other.call_id])
        work.commit()

    assert [ref.evaluation_id for ref in revived] == [dead.evaluation_id]
    again = _claim(uow, dead.evaluation_id)
    assert again is not None
    assert again.lease.attempt == 1
    _finish(uow, again)
    (view,) = PostgresQueries(uow.engine).evaluations([dead.evaluation_id])
    assert [attempt.result for attempt in view.attempts] == ["dead", "done"]


def test_keeping_leases_and_writing_results_never_block_each_other(uow: UnitsOfWork) -> None:
    """Hundreds of leases are extended in one statement while results of the same rows are written in another order."""
    made = [a_call(f"call-{number}") for number in range(120)]
    answers = submit_calls(made, workspace_name="w", uow=uow, grading=a_grading(), in_flight_limit=999)
    ids = [answer.evaluation_id for answer in answers if isinstance(answer, Accepted)]
    with uow() as work:
        claimed = [one for one in work.evaluations.claim(ids, lease_s=60) if isinstance(one, Claimed)]
        work.commit()
    records = GroupedRecords(uow, window_s=0.005, patience_s=0)
    keeper = LeaseKeeper(uow.engine, lease_s=0.03)
    answer = decide(an_assessment(), rubric=a_rubric(), transcript=a_transcript())
    attempt = AttemptRecord("done", datetime.now(UTC), Usage(), "m", 1)

    def result(one: Claimed) -> Write:
        return lambda work: work.evaluations.finish(one.lease, one.key, answer, Evidence(), attempt)

    with keeper.hold([one.lease for one in claimed]):
        written = [records.submit(result(one)) for one in random.Random(1).sample(claimed, len(claimed))]  # noqa: S311
        assert [future.exception(30) for future in written] == [None] * len(claimed)
    records.close()
    keeper.close()


def test_what_waits_for_a_mended_installation_can_be_freed(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    claimed = _claim(uow, accepted.evaluation_id)
    assert claimed is not None
    blocked = Failure(FailureKind.BLOCKED, "http_401", "The key is wrong.")
    record = AttemptRecord("parked", datetime.now(UTC), Usage(), "m", 0, None, blocked)
    with uow() as work:
        work.evaluations.wait(claimed.lease, wait_s=900, reason="http_401", counts=False, record=record)
        work.commit()
    queries = PostgresQueries(uow.engine)
    assert [one.blocked for one in queries.progress([accepted.evaluation_id])] == [True]

    with uow() as work:
        assert len(work.evaluations.revive([accepted.call_id])) == 1
        work.commit()

    assert [one.blocked for one in queries.progress([accepted.evaluation_id])] == [False]
    assert _claim(uow, accepted.evaluation_id) is not None


def test_a_lease_that_is_kept_does_not_run_out(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    lease = _claim(uow, accepted.evaluation_id, lease_s=0.6)
    assert lease is not None
    keeper = LeaseKeeper(uow.engine, lease_s=0.6)

    with keeper.hold([lease.lease]):
        time.sleep(1.2)
        with uow() as work:
            assert work.evaluations.free_expired(limit=10) == (0, 0)
    keeper.close()


def test_a_dead_workers_call_is_free_again_and_its_attempt_counts(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    _claim(uow, accepted.evaluation_id, lease_s=0.05)
    time.sleep(0.1)

    with uow() as work:
        assert work.evaluations.free_expired(limit=10) == (1, 0)
        (sent,) = work.evaluations.due(Room(live=5, backlog=5), batch=5)
        work.commit()
    assert sent.alone, "it may be what killed the worker"
    again = _claim(uow, accepted.evaluation_id)

    assert again is not None
    assert again.lease.attempt == 2
    with uow.engine.connect() as connection:
        assert connection.execute(select(attempts.c.result)).scalars().all() == ["abandoned"]


def test_a_call_that_kills_every_worker_is_given_up_after_its_attempts(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "poison")
    for _ in range(3):
        assert _claim(uow, accepted.evaluation_id, lease_s=0.01) is not None
        time.sleep(0.05)
        with uow() as work:
            work.evaluations.free_expired(limit=10)
            work.commit()
        _make_due(uow)

    assert _state(uow, accepted.evaluation_id) is WorkState.DEAD
    (view,) = PostgresQueries(uow.engine).evaluations([accepted.evaluation_id])
    assert (view.verdict, view.reasons, len(view.attempts)) == ("not_evaluated", ("abandoned",), 3)


def test_a_message_that_the_broker_lost_is_sent_again_once_a_period(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    time.sleep(0.1)

    with uow() as work:
        lost = work.evaluations.unsent(older_than_s=0.05, waiting=0, limit=10)
        just_sent = work.evaluations.unsent(older_than_s=0.05, waiting=0, limit=10)
        work.commit()

    assert [ref.evaluation_id for ref in lost] == [accepted.evaluation_id]
    assert list(just_sent) == []


def test_the_latest_result_is_the_current_one_and_the_earlier_is_kept(uow: UnitsOfWork) -> None:
    (first,) = _submit(uow, "one")
    (second,) = _submit(uow, "one", wanted=Wanted(rubric=NamedRubric(a_rubric("compliance"))))
    assert first.evaluation_id != second.evaluation_id

    for accepted in (first, second):
        lease = _claim(uow, accepted.evaluation_id)
        assert lease is not None
        _finish(uow, lease)

    views = PostgresQueries(uow.engine).evaluations([first.evaluation_id, second.evaluation_id])
    assert [(view.state, view.is_current) for view in views] == [(WorkState.DONE, False), (WorkState.DONE, True)]


def test_two_judges_under_one_rubric_are_two_versions(uow: UnitsOfWork) -> None:
    (by_claude,) = _submit(uow, "one", wanted=Wanted(judge=JudgeKind.CLAUDE))
    (by_rules,) = _submit(uow, "one", wanted=Wanted(judge=JudgeKind.RULES))

    assert by_claude.evaluation_id != by_rules.evaluation_id


def test_an_unknown_price_is_not_zero(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    lease = _claim(uow, accepted.evaluation_id)
    assert lease is not None
    _finish(uow, lease, cost=None)

    (view,) = PostgresQueries(uow.engine).evaluations([accepted.evaluation_id])
    assert view.cost_micro_usd is None


def test_the_agents_rubric_goes_before_its_workspaces(uow: UnitsOfWork) -> None:
    for_all, for_agent = NamedRubric(a_rubric("compliance")), NamedRubric(a_rubric("tool_usage"))
    (accepted,) = _submit(uow, "one")
    with uow() as work:
        (stored,) = work.calls.keys([accepted.call_id])
        assert stored is not None
        assert work.rubrics.default_for(stored.workspace, stored.agent_id) is None
        work.rubrics.set_default("default", for_all, agent_ref=None)
        assert work.rubrics.default_for(stored.workspace, stored.agent_id) == for_all
        work.rubrics.set_default("default", for_agent, agent_ref="booking")
        assert work.rubrics.default_for(stored.workspace, stored.agent_id) == for_agent
        work.rubrics.set_default("default", for_all, agent_ref="booking")
        assert work.rubrics.default_for(stored.workspace, stored.agent_id) == for_all
        with pytest.raises(LookupError):
            work.rubrics.set_default("default", for_all, agent_ref="nobody")


def test_a_call_comes_back_as_it_was_handed_over(uow: UnitsOfWork) -> None:
    call = a_call("one")
    (accepted,) = _submit(uow, "one")

    claimed = _claim(uow, accepted.evaluation_id)

    assert claimed is not None
    assert claimed.call == call


def test_a_transaction_that_is_not_committed_leaves_nothing_and_sends_nothing(uow: UnitsOfWork, outbox: Outbox) -> None:
    with uow() as work:
        (added,) = work.calls.add_all([a_call("one")], workspace_name="default")

    assert isinstance(added, Added)
    with uow() as work:
        assert work.calls.keys([added.key.id]) == []
    assert outbox.sent == []


def test_a_used_up_pool_is_an_outage_of_the_store(database_url: str, outbox: Outbox) -> None:
    from qa_worker.adapters.postgres.engine import make_engine  # noqa: PLC0415

    small = make_engine(database_url, pool_size=1, pool_timeout_s=0.1, application_name="tests")
    factory = UnitsOfWork(small, outbox)
    with factory(), pytest.raises(StoreUnavailable), factory():
        pass
    small.dispose()


def test_states_counts_and_ages_are_told(uow: UnitsOfWork) -> None:
    _submit(uow, "one", "two", limit=1)

    backlog = PostgresQueries(uow.engine).backlog(Left())

    assert dict(backlog.by_state) == {"queued": 1, "pending": 1}
    assert backlog.oldest_due_s is not None


def test_a_call_is_found_by_each_of_its_names(uow: UnitsOfWork) -> None:
    (accepted,) = _submit(uow, "one")
    queries = PostgresQueries(uow.engine)
    with uow.engine.begin() as connection:
        connection.execute(update(calls).values(external_id="CA77"))

    for name in ("one", "CA77", str(accepted.call_id)):
        assert [call.ref for call in queries.calls("default", name)] == ["one"]
    assert queries.calls("another workspace", str(accepted.call_id)) == []
    assert queries.calls("default", "two") == []


def test_counts_of_rows_agree(uow: UnitsOfWork) -> None:
    _submit(uow, "one", "two")

    with uow.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(evaluations)).scalar_one() == 2
