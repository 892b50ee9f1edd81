"""Letters are replayed once, whoever asks for it and however often, and say so when their work dies again."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import select

from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application.dead_letters import Refused, Replay, Replayed
from qa_worker.application.discard_dead_letters import discard_dead_letters
from qa_worker.application.replay_dead_letter import SETTLED, replay_dead_letters
from qa_worker.domain.dead_letter import Choice, LetterKind, LetterState
from qa_worker.domain.errors import InvalidInput, StoreUnavailable
from qa_worker.domain.outcome import Done
from qa_worker.messages import Queue, TaskName, evaluate_calls, send_alert
from tests.alerting import add_calls
from tests.conftest import Outbox, UnitsOfWork
from tests.letters import DIED_AT, EVERYTHING, a_message, add_letter, letters, replay, replaying
from tests.post import BODY, DELIVERED, REFUSED, Post, ScriptedChannel

pytestmark = pytest.mark.services


@pytest.fixture
def post(uow: UnitsOfWork) -> Post:
    """A workspace with endpoints."""
    return Post(uow)


def _dead(post: Post, endpoint: uuid.UUID, count: int = 1) -> list[uuid.UUID]:
    """Deliveries that were refused for good."""
    deliveries = [post.alert(endpoint)[0] for _ in range(count)]
    for delivery in deliveries:
        post.send(delivery, REFUSED)
    return deliveries


def _bury_evaluation(uow: UnitsOfWork, evaluation_id: uuid.UUID) -> None:
    """Its worker dies until its attempts are used up."""
    running = {"state": "running", "attempt": 3, "max_attempts": 3, "lease_token": uuid.uuid4()}
    long_ago = {"lease_until": DIED_AT, "started_at": DIED_AT}
    with uow.engine.begin() as connection:
        connection.execute(evaluations.update().where(evaluations.c.id == evaluation_id).values(**running, **long_ago))
    with uow() as work:
        assert work.evaluations.free_expired(limit=10) == (0, 1)
        work.commit()


def test_a_replayed_alert_is_a_new_delivery_with_the_same_webhook_id_and_bytes(post: Post, outbox: Outbox) -> None:
    (dead,) = _dead(post, post.endpoint())
    (letter,) = post.letters()
    outbox.sent.clear()

    (answer,) = replay(post.uow, by="maria")

    assert isinstance(answer, Replayed)
    again = post.row(answer.started)
    assert (again.replay_of, again.message_id, again.alert_id) == (
        dead,
        post.row(dead).message_id,
        post.row(dead).alert_id,
    )
    assert (again.attempt, again.max_attempts, again.state) == (0, 3, "queued")
    assert outbox.sent == [send_alert(again.id)]
    (settled,) = post.letters()
    assert (settled.id, settled.state, settled.settled_by, settled.replay_ref) == (
        letter.id,
        "replayed",
        "maria",
        again.id,
    )
    channel = ScriptedChannel([DELIVERED])
    post.send_with(again.id, channel)
    assert [(parcel.message_id, parcel.body) for parcel in channel.parcels] == [(again.message_id, BODY)]
    assert post.row(again.id).state == "done"


def test_two_operators_who_replay_the_same_letters_make_one_delivery_of_each(post: Post) -> None:
    dead = _dead(post, post.endpoint(), 8)
    barrier = threading.Barrier(2)
    answers: dict[str, list[Replay]] = {}

    def operate(name: str) -> None:
        barrier.wait()
        answers[name] = replay(post.uow, Choice(state=None), by=name)

    operators = [threading.Thread(target=operate, args=(name,)) for name in ("ann", "bob")]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()

    again = [row for row in post.rows() if row.replay_of]
    assert sorted(row.replay_of for row in again) == sorted(dead)
    done = [answer for name in answers for answer in answers[name] if isinstance(answer, Replayed)]
    assert sorted(answer.started for answer in done) == sorted(row.id for row in again)
    refused = [answer for name in answers for answer in answers[name] if isinstance(answer, Refused)]
    assert [answer.why for answer in refused] == [SETTLED] * 8
    assert all(letter.settled_by in ("ann", "bob") for letter in post.letters())


def test_a_second_replay_finds_nothing_to_do(post: Post) -> None:
    _dead(post, post.endpoint())
    (letter,) = post.letters()
    replay(post.uow)

    assert replay(post.uow) == []
    assert replay(post.uow, Choice(ids=(letter.id,))) == []
    assert replay(post.uow, Choice(ids=(letter.id,), state=None)) == [Refused(letter.id, SETTLED)]
    assert len(post.rows()) == 2


def test_what_dies_again_is_a_new_letter_that_says_so(post: Post) -> None:
    _dead(post, post.endpoint())
    for deaths in (2, 3):
        (answer,) = replay(post.uow)
        assert isinstance(answer, Replayed)
        post.make_due()
        post.send(answer.started, REFUSED)

        newest = next(letter for letter in post.letters() if letter.state == "open")
        assert (newest.deaths, newest.again_of, newest.ref_id) == (deaths, answer.letter_id, answer.started)
    assert len({row.message_id for row in post.rows()}) == 1


def test_nothing_is_replayed_to_an_endpoint_that_is_off(post: Post) -> None:
    endpoint = post.endpoint()
    _dead(post, endpoint)
    with post.uow() as work:
        work.endpoints.switch(endpoint, on=False, reason="By hand.")
        work.commit()

    (answer,) = replay(post.uow)

    assert isinstance(answer, Refused)
    assert "switched off" in answer.why
    assert ([letter.state for letter in post.letters()], len(post.rows())) == (["open"], 1)


def test_replays_go_behind_what_was_raised_just_now(post: Post) -> None:
    endpoint = post.endpoint()
    _dead(post, endpoint, 3)
    replay(post.uow)
    (fresh,) = post.alert(endpoint)
    for row in post.rows():
        if row.state == "queued":
            post.send(row.id, DELIVERED)

    post.dispatch()

    assert post.row(fresh).state in ("queued", "done")
    assert {row.lane for row in post.rows() if row.replay_of} == {"backlog"}


def test_an_evaluation_is_revived_with_all_its_attempts(uow: UnitsOfWork, outbox: Outbox) -> None:
    (accepted,) = add_calls(uow, "one")
    _bury_evaluation(uow, accepted.evaluation_id)
    (letter,) = letters(uow)
    assert (letter.kind, letter.ref_id, letter.reason, letter.attempts) == (
        "evaluation",
        accepted.evaluation_id,
        "abandoned",
        3,
    )
    assert letter.payload == {"evaluation_id": str(accepted.evaluation_id), "call_id": str(accepted.call_id)}
    outbox.sent.clear()

    assert replay(uow) == [Replayed(letter.id, LetterKind.EVALUATION, accepted.evaluation_id)]

    with uow() as work:
        status = work.evaluations.status(accepted.evaluation_id)
    assert status is not None
    assert (status.state.value, status.attempt) == ("queued", 0)
    assert outbox.sent == [evaluate_calls([accepted.evaluation_id])]
    _bury_evaluation(uow, accepted.evaluation_id)
    assert [(row.state, row.deaths, row.again_of) for row in letters(uow)] == [
        ("replayed", 1, None),
        ("open", 2, letter.id),
    ]


def test_retry_settles_the_letters_of_what_it_revives(uow: UnitsOfWork) -> None:
    one, two = add_calls(uow, "one", "two")
    for accepted in (one, two):
        _bury_evaluation(uow, accepted.evaluation_id)

    with uow() as work:
        work.evaluations.revive([one.call_id])
        work.commit()

    states = {row.ref_id: (row.state, row.settled_by) for row in letters(uow)}
    assert states == {one.evaluation_id: ("replayed", "qa-worker retry"), two.evaluation_id: ("open", "")}


def test_a_message_is_sent_again_once_its_task_is_known(uow: UnitsOfWork, outbox: Outbox) -> None:
    rule = str(uuid.uuid4())
    with uow() as work:
        work.dead_letters.add_message(a_message("raise-alerts", rule_id=rule))
        work.dead_letters.add_message(a_message("no-such-task"))
        work.commit()

    answers = replay(uow)

    (refused,) = [answer for answer in answers if isinstance(answer, Refused)]
    assert (len(answers), refused.why) == (2, "This version of the program knows no task of this name.")
    (sent,) = outbox.sent
    assert (sent.task, sent.queue, sent.kwargs) == (TaskName.RAISE_ALERTS, Queue.SEND_ALERT, {"rule_id": rule})
    assert {row.task: row.state for row in letters(uow)} == {"raise-alerts": "replayed", "no-such-task": "open"}


def test_a_message_stays_open_while_the_broker_is_away(uow: UnitsOfWork, outbox: Outbox) -> None:
    def away(_batch: object) -> None:
        raise StoreUnavailable("the broker can't be reached: OSError")

    with uow() as work:
        work.dead_letters.add_message(a_message("raise-alerts", rule_id=str(uuid.uuid4())))
        work.commit()
    given = replaying(uow, send_now=away)

    (answer,) = replay_dead_letters(choice=EVERYTHING, limit=9, rate=5, by="ops", replaying=given)

    assert isinstance(answer, Refused)
    assert answer.why == "it could not be sent, so it stays open: the broker can't be reached: OSError"
    assert [row.state for row in letters(uow)] == ["open"]
    assert [type(one) for one in replay(uow)] == [Replayed]
    assert [message.task for message in outbox.sent] == [TaskName.RAISE_ALERTS]


def test_the_same_message_again_is_the_same_letter_and_counted(uow: UnitsOfWork) -> None:
    for _ in range(3):
        with uow() as work:
            work.dead_letters.add_message(a_message(x=1))
            work.commit()
    with uow() as work:
        work.dead_letters.add_message(a_message(x=2))
        work.commit()

    assert sorted(row.attempts for row in letters(uow)) == [1, 3]


def test_a_run_that_nobody_knows_is_refused_and_stays_open(uow: UnitsOfWork) -> None:
    letter = add_letter(uow, kind="run")

    assert next(answer for answer in replay(uow) if isinstance(answer, Refused)).letter_id == letter
    assert [row.state for row in letters(uow)] == ["open"]


def test_filters_choose_and_the_oldest_go_first(post: Post) -> None:
    ops, pager = post.endpoint("ops"), post.endpoint("pager")
    to_ops, to_pager = _dead(post, ops, 2), _dead(post, pager, 1)
    elsewhere = add_letter(post.uow, queue="maintenance", reason="unknown_task")
    ids = {letter.ref_id: letter.id for letter in post.letters()}

    def chosen(**fields: object) -> list[uuid.UUID]:
        with post.uow() as work:
            return list(work.dead_letters.choose(Choice(**fields), limit=9))  # type: ignore[arg-type]

    assert chosen(endpoint="pager") == [ids[to_pager[0]]]
    assert chosen(kind=LetterKind.ALERT, endpoint="ops") == [ids[one] for one in to_ops]
    assert (
        chosen(queue="maintenance") == chosen(reason="unknown_task") == chosen(kind=LetterKind.MESSAGE) == [elsewhere]
    )
    assert len(chosen(workspace="w")) == 3
    assert chosen(workspace="another") == []
    assert chosen(until=DIED_AT + timedelta(seconds=1)) == [elsewhere]
    assert elsewhere not in chosen(since=DIED_AT + timedelta(seconds=1))
    assert chosen(ids=(elsewhere,)) == [elsewhere]
    assert chosen(ids=()) == []
    assert chosen(state=LetterState.DISCARDED) == []
    assert chosen()[0] == elsewhere
    assert len(replay(post.uow, Choice(kind=LetterKind.ALERT), limit=2)) == 2
    assert [letter.state for letter in post.letters()].count("open") == 2


def test_replays_keep_their_rate(post: Post) -> None:
    _dead(post, post.endpoint(), 3)
    pauses: list[float] = []
    given = replaying(post.uow, pause=pauses.append)

    list(replay_dead_letters(choice=EVERYTHING, limit=9, rate=4, by="ops", replaying=given))

    assert pauses == [0.25, 0.25]


def test_what_is_discarded_says_why_and_is_never_replayed(post: Post) -> None:
    _dead(post, post.endpoint(), 2)

    with pytest.raises(InvalidInput, match="reason"):
        discard_dead_letters(choice=EVERYTHING, limit=9, by="ops", reason=" ", uow=post.uow)
    discarded = discard_dead_letters(choice=EVERYTHING, limit=1, by="ops", reason="a test", uow=post.uow)

    assert discarded == 1
    assert [(letter.state, letter.settled_by, letter.note) for letter in post.letters()] == [
        ("discarded", "ops", "a test"),
        ("open", "", ""),
    ]
    assert len(replay(post.uow)) == 1


def test_a_replay_that_is_delivered_leaves_no_second_letter(post: Post) -> None:
    _dead(post, post.endpoint())
    (answer,) = replay(post.uow)
    assert isinstance(answer, Replayed)

    assert post.send(answer.started, DELIVERED) == Done("delivered")

    assert [letter.state for letter in post.letters()] == ["replayed"]


def test_letters_of_a_killed_transaction_are_not_there(post: Post) -> None:
    """The letter and the death are one transaction: without its commit there is neither."""
    (delivery,) = post.alert(post.endpoint())
    with post.uow() as work:
        work.deliveries.bury_open(post.row(delivery).endpoint_id, REFUSED.failure)  # type: ignore[arg-type]

    assert (post.letters(), post.row(delivery).state) == ([], "pending")
    with post.uow.engine.connect() as connection:
        assert connection.execute(select(evaluations.c.id)).all() == []
