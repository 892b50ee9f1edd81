"""Letters on real PostgreSQL: written with the death, counted, found by their indexes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from qa_worker.adapters.postgres.alert_queries import PostgresAlertQueries
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.vitals import PostgresVitals
from qa_worker.application._grading import Tools
from qa_worker.application.evaluate_call import evaluate_call
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.dead_letter import Choice, LetterKind
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind
from tests.alerting import add_calls
from tests.builders import a_grading
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases, ScriptedJudge
from tests.letters import DIED_AT, add_letter, letters
from tests.post import DELIVERED, REFUSED, Post

pytestmark = pytest.mark.services

REJECTED = Failure(FailureKind.REJECTED, "http_413", "The request is too large.")


def _graded(uow: UnitsOfWork, accepted: Accepted, *script: Failure) -> object:
    tools = Tools(
        uow=uow,
        records=DirectRecords(uow),
        leases=NoLeases(),
        context=NoContext(),
        judges={JudgeKind.CLAUDE: ScriptedJudge(script)},
        clock=FrozenClock(),
        jitter=FixedJitter(),
        policy=RetryPolicy(schedule_s=(10,), max_attempts=3),
        grading=a_grading(),
        lease_s=60,
    )
    return evaluate_call(call_id=accepted.call_id, evaluation_id=accepted.evaluation_id, tools=tools)


def test_an_evaluation_that_is_given_up_on_leaves_one_letter(uow: UnitsOfWork) -> None:
    (accepted,) = add_calls(uow, "one")

    assert _graded(uow, accepted, REJECTED) == Dead("http_413")

    (letter,) = letters(uow)
    assert (letter.kind, letter.ref_id, letter.workspace_id) == (
        "evaluation",
        accepted.evaluation_id,
        workspace_id("w"),
    )
    assert (letter.queue, letter.task, letter.reason, letter.attempts) == (
        "evaluate-call",
        "evaluate-call",
        "http_413",
        1,
    )
    assert (letter.first_error, letter.last_error) == ("The request is too large.", "The request is too large.")


def test_what_is_tried_again_leaves_none(uow: UnitsOfWork) -> None:
    (accepted,) = add_calls(uow, "one")

    _graded(uow, accepted, Failure(FailureKind.TRANSIENT, "http_500", "Broken."))

    assert letters(uow) == []


def test_depth_and_age_are_known_by_kind(uow: UnitsOfWork) -> None:
    queries = PostgresAlertQueries(uow.engine)
    assert (queries.letter_figures().depth, queries.letter_figures().oldest_open_s) == (0, None)
    add_letter(uow, kind="run")
    add_letter(uow)
    add_letter(uow, state="discarded", settled_at=DIED_AT)

    figures = queries.letter_figures()

    assert (figures.open_by_kind, figures.depth, figures.unannounced) == ({"run": 1, "message": 1}, 2, 2)
    assert figures.oldest_open_s is not None
    assert figures.oldest_open_s > 0


def test_letters_are_counted_however_they_are_chosen(uow: UnitsOfWork) -> None:
    def counted(choice: Choice) -> int:
        with uow() as work:
            return work.dead_letters.count(choice)

    everything = Choice(state=None)
    assert counted(everything) == 0
    add_letter(uow, kind="run")
    add_letter(uow)
    add_letter(uow, state="discarded", settled_at=DIED_AT)

    assert (counted(everything), counted(Choice()), counted(Choice(kind=LetterKind.RUN))) == (3, 2, 1)


def test_letters_of_nobody_count_for_every_workspace(uow: UnitsOfWork) -> None:
    (one,) = add_calls(uow, "one", workspace="w")
    add_calls(uow, "two", workspace="other")
    _graded(uow, one, REJECTED)
    add_letter(uow)
    since = DIED_AT - timedelta(days=1)
    vitals = PostgresVitals(uow.engine)

    counts = {name: vitals.new_letters(WorkspaceId(workspace_id(name)), since=since) for name in ("w", "other")}

    assert counts == {"w": 2, "other": 1}


def test_the_result_of_a_replay_is_told(uow: UnitsOfWork) -> None:
    post = Post(uow)
    (delivery,) = post.alert(post.endpoint())
    post.send(delivery, REFUSED)
    (letter,) = letters(uow)
    queries = PostgresAlertQueries(uow.engine)
    with uow() as work:
        again = work.dead_letters.redeliver(delivery, max_attempts=3)
        assert again is not None
        assert work.dead_letters.redeliver(delivery, max_attempts=3) is None
        work.dead_letters.started(letter.id, again)
        work.commit()

    def outcome() -> str:
        view = queries.letter(letter.id)
        assert view is not None
        return view.outcome

    assert outcome() == "pending"
    post.send(again, DELIVERED)
    assert outcome() == "delivered"
    view = queries.letter(letter.id)
    assert view is not None
    assert [(one.result, one.status_code, one.response_head) for one in view.tries] == [("dead", 404, "who?")]
    (alert,) = queries.alerts("w", before=None, limit=9)
    assert [one.replay_of for one in alert.deliveries] == [None, delivery]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT id FROM dead_letters WHERE state = 'open' AND announced_at IS NULL ORDER BY died_at LIMIT 100",
         "ix_dead_letters_unannounced"),
        ("SELECT id FROM dead_letters WHERE replay_ref = '6f7c2a58-7d0e-5a0e-9c55-2f6f3f1c7b11'", "ix_dead_letters_replay_ref"),
        ("SELECT id FROM dead_letters WHERE state = 'open' ORDER BY died_at DESC, id LIMIT 20",
         "ix_dead_letters_state_died_at"),
        ("SELECT id FROM dead_letters WHERE workspace_id = '6f7c2a58-7d0e-5a0e-9c55-2f6f3f1c7b11' ORDER BY died_at DESC, id LIMIT 20",
         "ix_dead_letters_workspace_id_died_at"),
    ],
)  # fmt: skip
def test_a_question_that_is_asked_often_has_its_index(uow: UnitsOfWork, query: str, index: str) -> None:
    with uow.engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join(connection.execute(text(f"EXPLAIN {query}")).scalars())

    assert index in plan
