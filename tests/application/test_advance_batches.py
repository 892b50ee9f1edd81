"""Batches from the rows that wait to the verdicts: faults and deaths at every step, on real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from qa_worker.adapters.postgres.budget import PostgresBudget
from qa_worker.adapters.postgres.tables import attempts, batch_items, batch_promises, batches, evaluations
from qa_worker.application.advance_batches import Advanced, advance_batches
from qa_worker.application.dispatch_work import dispatch_work
from qa_worker.application.ports import Claimed
from qa_worker.application.purse import Left
from qa_worker.domain.backlog import Via
from qa_worker.domain.batch import ResultKind
from qa_worker.domain.call import workspace_id
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.work import Lane, WorkState
from tests.application.batch_bench import CUT, GONE, Bench
from tests.builders import a_call, a_grading, an_assessment
from tests.conftest import UnitsOfWork
from tests.fakes import NoPace

pytestmark = pytest.mark.services

OVERLOADED = Failure(FailureKind.OVERLOADED, "http_529", "Overloaded.")
SPENT = Failure(FailureKind.SPEND_CAP, "enforced_spend_limit_reached", "The limit of the account is reached.")
NO_BATCHES = Failure(FailureKind.TRANSIENT, "http_501", "Not implemented.")
REFUSED = Failure(FailureKind.REJECTED, "http_400", "The batch is invalid.")
REFS = [f"call-{number}" for number in range(7)]


@pytest.fixture
def bench(uow: UnitsOfWork) -> Bench:
    """Calls can be stored, nothing is."""
    return Bench(uow)


def test_calls_are_graded_by_a_batch_at_half_price(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    (batch,) = bench.rows()
    assert (batch.state, batch.request_count, batch.provider_id) == ("in_progress", 7, "ours-0")
    assert {view.state for view in bench.views().values()} == {WorkState.RUNNING}

    bench.age()
    bench.advance()
    assert bench.states() == ["in_progress"]
    bench.service.end_all()
    bench.age()
    bench.advance()

    (batch,) = bench.rows()
    # 1000 x 0.10 + 500 x 0.01 + 200 x 0.50 dollars per million tokens, halved
    assert (batch.state, batch.succeeded, batch.cost_micro_usd) == ("collected", 7, 7 * 103)
    assert bench.verdicts() == {"pass": 7}
    assert bench.results() == {"succeeded": 7}
    view = bench.views()["call-0"]
    assert (view.cost_micro_usd, view.attempt, view.is_current) == (103, 1, True)
    assert [(one.result, one.request_id) for one in view.attempts] == [("done", "ours-0")]


def test_nothing_waits_and_nothing_is_made(bench: Bench) -> None:
    assert bench.advance() == 0
    assert bench.rows() == []


def test_custom_ids_are_the_lease_tokens(bench: Bench) -> None:
    bench.submit("one")
    bench.advance()

    with bench.uow.engine.connect() as connection:
        token = connection.execute(select(evaluations.c.lease_token)).scalar_one()
        assert connection.execute(select(batch_items.c.token)).scalar_one() == token
    assert list(bench.service.made["ours-0"].requests) == [token.hex]


def test_a_batch_holds_no_more_than_its_limit(uow: UnitsOfWork) -> None:
    bench = Bench(uow, max_requests=3)
    bench.submit(*REFS)

    bench.advance()

    assert sorted(row.request_count for row in bench.rows()) == [1, 3, 3]


def test_what_does_not_fit_goes_into_the_next_batch_and_uses_up_no_attempt(bench: Bench) -> None:
    bench.service.max_requests = 4
    bench.submit(*REFS)

    bench.run_to_the_end()

    assert sorted(row.request_count for row in bench.rows()) == [3, 4]
    assert bench.verdicts() == {"pass": 7}
    assert {view.attempt for view in bench.views().values()} == {1}


def test_a_call_that_no_batch_can_hold_goes_through_the_queue(bench: Bench) -> None:
    bench.service.max_requests = 0
    bench.submit("huge")

    bench.advance()

    assert bench.rows() == []
    assert bench.lanes() == {Lane.BACKLOG: 1}


def test_results_of_every_kind_are_recorded_by_the_same_rules_as_single_answers(bench: Bench) -> None:
    bench.service.endings = {
        "call-1": Failure(FailureKind.REJECTED, "batch_invalid_request_error", "Invalid."),
        "call-2": ResultKind.ERRORED,
        "call-3": ResultKind.EXPIRED,
        "call-4": Failure(FailureKind.UNREADABLE, "refusal:cyber", "Refused."),
        "call-5": an_assessment(level=1),
        "call-6": ResultKind.MISSING,
    }
    bench.submit(*REFS)
    bench.advance()
    bench.service.end_all()
    bench.age()
    bench.advance()

    views = bench.views()
    assert {ref: (view.state.value, view.verdict, view.attempt) for ref, view in views.items()} == {
        "call-0": ("done", "pass", 1),
        "call-1": ("dead", "not_evaluated", 1),
        "call-2": ("pending", None, 1),
        "call-3": ("pending", None, 0),  # what was never asked uses up nothing
        "call-4": ("done", "needs_review", 1),
        "call-5": ("done", "needs_review", 1),
        "call-6": ("pending", None, 1),  # counted: it must not go round for ever
    }
    assert views["call-4"].attempts[0].raw == "what the model wrote"
    assert bench.results() == {"succeeded": 3, "errored": 2, "expired": 1, "missing": 1}
    assert bench.lanes() == {Lane.BATCH: 2, Lane.BACKLOG: 1}, "what expired goes through the queue"

    bench.service.endings = {}
    bench.run_to_the_end()
    assert bench.verdicts() == {"pass": 3, "needs_review": 2, "not_evaluated": 1, None: 1}
    assert bench.views()["call-3"].state is WorkState.PENDING


def test_what_expires_each_time_does_not_go_round_for_ever(bench: Bench) -> None:
    bench.service.endings = dict.fromkeys(REFS, ResultKind.EXPIRED)
    bench.submit(*REFS)

    bench.run_to_the_end()

    assert (bench.service.calls["send"], bench.lanes()) == (1, {Lane.BACKLOG: 7})
    assert {view.attempt for view in bench.views().values()} == {0}


def test_what_never_shows_up_in_results_is_given_up_after_its_attempts(bench: Bench) -> None:
    bench.service.endings = {"one": ResultKind.MISSING}
    bench.submit("one")

    bench.run_to_the_end()

    view = bench.views()["one"]
    assert (view.state, view.attempt, view.error_code) == (WorkState.DEAD, 3, "batch_result_missing")


# -- a creation whose answer was lost


def test_a_timeout_on_create_never_submits_twice(bench: Bench) -> None:
    bench.service.faults["send"] = [CUT]
    bench.submit(*REFS)

    bench.run_to_the_end()

    assert (bench.service.calls["send"], len(bench.service.made)) == (1, 1)
    (batch,) = bench.rows()
    assert (batch.state, batch.adopted, batch.succeeded) == ("collected", True, 7)
    assert bench.verdicts() == {"pass": 7}


def test_a_batch_that_is_not_found_is_sent_again_only_when_time_has_passed(uow: UnitsOfWork) -> None:
    bench = Bench(uow, settle_s=120)
    bench.service.faults["send"] = [Failure(FailureKind.TRANSIENT, "http_500", "Failed.")]
    bench.submit(*REFS)
    bench.advance()
    assert (bench.states(), bench.service.calls["since"]) == (["creating"], 1)

    bench.clock.advance(119)
    bench.age()
    bench.advance()
    assert (bench.states(), bench.service.calls["send"]) == (["creating"], 1)

    bench.clock.advance(2)
    bench.run_to_the_end()
    assert (bench.service.calls["send"], bench.verdicts()) == (2, {"pass": 7})


def test_no_other_batch_is_made_while_one_is_being_looked_for(uow: UnitsOfWork) -> None:
    bench = Bench(uow, settle_s=120)
    bench.service.faults["send"] = [Failure(FailureKind.TRANSIENT, "timeout", "Too late.")]
    bench.submit("one")
    bench.advance()
    bench.submit("two")

    bench.age()
    bench.advance()

    assert bench.states() == ["creating"]


def test_a_refused_creation_is_tried_again_without_a_search(bench: Bench) -> None:
    bench.service.faults["send"] = [OVERLOADED]
    bench.submit("one")
    bench.advance()
    (batch,) = bench.open()
    assert (batch.state.value, batch.error_code) == ("preparing", "http_529")

    bench.age()
    bench.advance()

    assert (bench.states(), bench.service.calls["since"], bench.service.calls["send"]) == (["in_progress"], 0, 2)
    assert bench.open()[0].error_code == ""


def test_somebody_elses_batch_of_the_same_size_is_given_up_and_ours_is_sent_again(bench: Bench) -> None:
    bench.service.faults["send"] = [Failure(FailureKind.TRANSIENT, "timeout", "Too late.")]
    theirs = bench.service.foreign(2, at=bench.clock.now())
    bench.submit("one", "two")

    bench.advance()
    assert bench.rows()[0].provider_id == theirs
    bench.run_to_the_end()

    (batch,) = bench.rows()
    assert (batch.state, batch.provider_id, bench.service.calls["send"]) == ("collected", "ours-1", 2)
    assert bench.verdicts() == {"pass": 2}


def test_of_several_candidates_the_next_one_is_tried(bench: Bench) -> None:
    theirs = bench.service.foreign(1, at=bench.clock.now() - timedelta(seconds=10))
    bench.service.faults["send"] = [CUT]
    bench.submit("one")

    bench.advance()
    assert bench.rows()[0].provider_id == theirs
    bench.run_to_the_end()

    assert (bench.service.calls["send"], bench.rows()[0].provider_id) == (1, "ours-1")
    assert bench.verdicts() == {"pass": 1}


def test_a_batch_that_was_only_found_is_never_cancelled(bench: Bench) -> None:
    bench.service.faults["send"] = [CUT]
    bench.submit("one")
    bench.advance()
    _cancel(bench)

    bench.age()
    bench.advance()

    assert bench.service.calls["cancel"] == 0


# -- faults of the provider


@pytest.mark.parametrize("failure", [SPENT, Failure(FailureKind.BLOCKED, "http_401", "The key is wrong.")])
def test_an_installation_at_fault_leaves_the_batch_waiting_with_its_reason(bench: Bench, failure: Failure) -> None:
    bench.service.faults["send"] = [failure] * 3
    bench.submit("one")
    for _ in range(3):
        bench.advance()
        bench.age()

    (batch,) = bench.open()
    assert (batch.state.value, batch.error_code, batch.error_message) == ("preparing", failure.code, failure.message)
    assert bench.views()["one"].attempt == 1
    bench.run_to_the_end()
    assert bench.verdicts() == {"pass": 1}


@pytest.mark.parametrize("operation", ["status", "results"])
def test_a_fault_while_it_is_looked_at_leaves_the_batch_in_its_state(bench: Bench, operation: str) -> None:
    bench.submit(*REFS)
    bench.advance()
    bench.service.end_all()
    bench.service.faults[operation] = [OVERLOADED, CUT]

    bench.age()
    bench.advance()
    assert bench.open()[0].error_code == "http_529"
    bench.run_to_the_end()

    assert bench.verdicts() == {"pass": 7}
    assert bench.results() == {"succeeded": 7}
    with bench.uow.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar_one() == 7


@pytest.mark.parametrize("failure", [REFUSED, GONE, NO_BATCHES])
def test_a_server_that_takes_no_batches_leaves_the_calls_to_the_queue(bench: Bench, failure: Failure) -> None:
    bench.service.faults["send"] = [failure]
    bench.submit(*REFS)

    bench.advance()

    assert bench.states() == ["failed"]
    assert bench.rows()[0].error_code == failure.code
    assert bench.lanes() == {Lane.BACKLOG: 7}
    assert {view.attempt for view in bench.views().values()} == {0}


def test_a_batch_that_the_provider_knows_no_more_leaves_its_calls_to_the_queue(bench: Bench) -> None:
    bench.submit("one")
    bench.advance()
    bench.service.made.clear()

    for _ in range(4):
        bench.age()
        bench.advance()
        assert [(one.state.value, one.error_code) for one in bench.open()] == [("in_progress", "http_404")]
    bench.age()
    bench.advance()

    assert (bench.states(), bench.lanes()) == (["failed"], {Lane.BACKLOG: 1})


@pytest.mark.parametrize("gone", [GONE, NO_BATCHES])
def test_a_batch_that_is_to_be_cancelled_where_nobody_knows_it_leaves_its_calls_to_the_queue(
    bench: Bench, gone: Failure
) -> None:
    bench.submit("one")
    bench.advance()
    _cancel(bench)
    bench.service.faults = {"cancel": [gone] * 9, "status": [gone] * 9}

    bench.run_to_the_end()

    assert (bench.states(), bench.lanes()) == (["failed"], {Lane.BACKLOG: 1})


def test_a_lost_batch_is_not_looked_for_without_an_end_where_there_are_none(bench: Bench) -> None:
    bench.service.faults = {"send": [Failure(FailureKind.TRANSIENT, "timeout", "Too late.")], "since": [NO_BATCHES] * 9}
    bench.submit("one")

    bench.run_to_the_end()

    assert (bench.states(), bench.lanes()) == (["failed"], {Lane.BACKLOG: 1})


def test_an_address_that_is_wrong_for_a_while_costs_no_results(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    bench.service.faults = {"status": [GONE] * 3, "results": [GONE] * 2}

    bench.run_to_the_end()

    assert (bench.verdicts(), bench.states()) == ({"pass": 7}, ["collected"])


# -- cancelling


def _cancel(bench: Bench) -> None:
    with bench.uow() as work:
        assert len(work.batches.ask_cancel(str(bench.rows()[0].id)[:8])) == 1
        work.commit()


def test_calls_of_a_cancelled_batch_go_through_the_queue(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    _cancel(bench)

    bench.advance()
    bench.age()
    bench.advance()

    assert (bench.service.calls["cancel"], bench.states()) == (1, ["collected"])
    assert bench.results() == {"canceled": 7}
    assert bench.lanes() == {Lane.BACKLOG: 7}
    assert {view.attempt for view in bench.views().values()} == {0}


def test_a_batch_that_was_not_sent_yet_is_cancelled_without_the_provider(bench: Bench) -> None:
    bench.service.faults["send"] = [SPENT]
    bench.submit("one")
    bench.advance()
    _cancel(bench)

    bench.advance()

    assert (bench.states(), bench.lanes(), bench.service.calls["cancel"]) == (["failed"], {Lane.BACKLOG: 1}, 0)


# -- workers that die

POINTS = [
    "add call-0",
    "add call-3",
    "before send",
    "after send",
    "before since",
    "before status",
    "before results",
    "results 0",
    "results 3",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_at_any_point_loses_and_doubles_nothing(bench: Bench, point: str) -> None:
    bench.service.kill = {point}
    if point == "before since":
        bench.service.faults["send"] = [CUT]
    bench.submit(*REFS)

    bench.run_to_the_end()

    assert bench.service.kill == set(), "it was reached"
    assert bench.verdicts() == {"pass": 7}
    assert sum(len(one.requests) for one in bench.service.made.values()) == 7, "each call was sent once"
    assert {len(view.attempts) for view in bench.views().values()} == {1}


def test_a_worker_that_dies_between_recording_and_settling_records_nothing_twice(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    bench.service.end_all()
    bench.age()
    bench.advance()
    with bench.uow.engine.begin() as connection:
        connection.execute(update(batch_items).values(result=None))
        estimated = select(func.sum(batch_items.c.estimate_micro_usd)).scalar_subquery()
        connection.execute(update(batch_promises).values(micro_usd=estimated))
        connection.execute(update(batches).values(state="ended", lease_token=None, lease_until=None))

    bench.age()
    bench.advance()

    assert bench.states() == ["collected"]
    view = bench.views()["call-0"]
    assert (len(view.attempts), view.cost_micro_usd, view.usage.output_tokens) == (1, 103, 200)


def test_a_batch_that_kills_worker_after_worker_is_left_to_the_queue(bench: Bench) -> None:
    bench.submit(*REFS)
    for _ in range(4):
        bench.service.kill = {"add call-3"}
        bench.advance_until_killed()
    bench.service.kill = set()

    bench.advance()

    assert bench.states() == ["failed"]
    assert bench.rows()[0].error_code == "workers_died"
    assert bench.lanes() == {Lane.BACKLOG: 7}


def test_results_that_come_after_the_lease_was_lost_are_dropped_and_paid_for(bench: Bench) -> None:
    bench.submit("one")
    bench.advance()
    bench.lose_leases()
    with bench.uow() as work:
        (claimed,) = work.evaluations.claim([bench.views()["one"].id], lease_s=60)
        assert isinstance(claimed, Claimed)
        work.commit()

    bench.service.end_all()
    bench.age()
    bench.advance()

    view = bench.views()["one"]
    assert (view.state, view.attempt, bench.states()) == (WorkState.RUNNING, 2, ["collected"])
    assert [(one.result, one.cost_micro_usd) for one in view.attempts] == [("abandoned", 103)]


def test_leases_that_come_to_an_end_while_a_batch_is_open_are_extended(bench: Bench) -> None:
    bench.submit("one")
    bench.advance()
    with bench.uow.engine.begin() as connection:
        connection.execute(update(batches).values(items_leased_until=func.now()))
        connection.execute(update(evaluations).values(lease_until=func.now()))

    bench.age()
    bench.advance()

    with bench.uow() as work:
        assert work.evaluations.free_expired(limit=10) == (0, 0)


def test_what_a_batch_holds_is_not_paid_for_twice_however_long_nobody_looked(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    bench.nobody_looks_for_days()

    assert bench.sweep() == (0, 0)

    bench.service.end_all()
    bench.age()
    bench.advance()
    assert bench.verdicts() == {"pass": 7}
    assert sum(len(one.requests) for one in bench.service.made.values()) == 7, "each call was sent once"
    assert {len(view.attempts) for view in bench.views().values()} == {1}


def test_what_no_open_batch_holds_is_free_when_its_lease_has_run_out(bench: Bench) -> None:
    bench.submit("one")
    bench.advance()
    bench.nobody_looks_for_days()
    with bench.uow.engine.begin() as connection:
        connection.execute(batches.delete())

    assert bench.sweep() == (1, 0)


def test_a_batch_whose_results_are_not_kept_any_longer_gives_its_calls_back(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    bench.service.end_all()
    bench.age()
    bench.clock.advance(30 * 86_400)
    bench.nobody_looks_for_days()
    bench.service.faults["results"] = [REFUSED]

    bench.run_to_the_end()

    assert bench.states() == ["failed"]
    assert (bench.verdicts()["pass"], bench.lanes()) == (3, {Lane.BACKLOG: 4}), "a part could still be read"


def test_two_workers_are_never_at_batches_at_once(bench: Bench) -> None:
    bench.submit("one")
    with bench.uow() as work:
        taken = work.batches.begin(but_not=(), lease_s=60)
        work.commit()

    assert taken is not None
    assert bench.advance() == 0
    assert bench.states() == ["preparing"]


# -- budgets


def test_what_the_workspaces_budget_does_not_cover_stays_pending(uow: UnitsOfWork) -> None:
    poor, rich = workspace_id("poor"), workspace_id("rich")
    bench = Bench(uow, left=lambda: Left(of={poor: 0, rich: 10**6}))
    bench.submit("a", "b", workspace="poor")
    bench.submit("c", workspace="rich")

    bench.advance()

    assert [row.request_count for row in bench.rows()] == [1]
    assert {ref: view.state.value for ref, view in bench.views().items()} == {
        "a": "pending",
        "b": "pending",
        "c": "running",
    }
    assert {view.attempts for view in bench.views().values()} == {()}


def test_no_more_is_sent_than_is_left_for_everybody_and_what_was_sent_counts_as_spent(uow: UnitsOfWork) -> None:
    bench = Bench(uow)
    bench.submit("first")
    bench.advance()
    (batch,) = bench.open()
    each = batch.estimate_micro_usd
    assert each is not None
    assert each > 0
    budget = PostgresBudget(uow.engine, overall=each * 3 + each // 2, each_workspace=None, now=bench.clock.now)
    bench.left = budget.left

    bench.submit(*REFS)
    bench.advance()

    assert [row.request_count for row in bench.rows()] == [1, 2]
    assert (bench.lanes(), budget.spending()[0].spent) == ({Lane.BATCH: 5}, each * 3)

    bench.left = lambda: Left(overall=0)
    bench.service.end_all()
    bench.age()
    bench.advance()
    assert budget.spending()[0].spent == 3 * 103, "what it has cost, in place of what was promised"


def test_without_any_budget_no_batch_is_begun(uow: UnitsOfWork) -> None:
    bench = Bench(uow, left=lambda: Left(overall=0))
    bench.submit("one")

    assert bench.advance() == 0
    assert bench.rows() == []


# -- the rest of the system


def test_what_a_batch_holds_does_not_hold_back_the_dispatcher(bench: Bench) -> None:
    bench.submit(*REFS)
    bench.advance()
    bench.submit("later", via=Via.QUEUE)

    assert dispatch_work(uow=bench.uow, pace=NoPace(), left=Left, in_flight_limit=2) == 1
    (live,) = bench.hand_over(a_call("live"))
    with bench.uow() as work:
        assert sum(work.evaluations.in_flight().values()) == 1
        assert work.evaluations.queue_new([live.evaluation_id], in_flight_limit=2) == {live.evaluation_id}


def test_a_score_next_to_the_threshold_gets_its_further_answers_in_the_queue(uow: UnitsOfWork) -> None:
    bench = Bench(uow, grading=replace(a_grading(), votes=3, borderline=5))
    bench.service.endings = {"close": an_assessment(levels={"compliance": 4, "response_quality": 4, "tool_usage": 3})}
    bench.submit("close", "clear")

    bench.advance()
    bench.service.end_all()
    bench.age()
    bench.advance()

    close = bench.views()["close"]
    # the attempt counts: an answer was paid for
    assert (close.state, close.wait_reason, close.attempt) == (WorkState.PENDING, "borderline", 1)
    assert (close.cost_micro_usd, bench.lanes()) == (103, {Lane.BACKLOG: 1})
    assert bench.views()["clear"].verdict == "pass"


def test_a_worker_without_a_key_says_how_much_waits(bench: Bench) -> None:
    bench.submit(*REFS)

    assert advance_batches(tools=bench.tools(with_key=False)) == Advanced(stuck=7)
