"""Which deliveries leave when, what is found again, and what is given up without another try."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, update

from qa_worker import messages
from qa_worker.adapters.postgres.tables import deliveries, endpoints
from qa_worker.application.channels import Answer, Parcel
from qa_worker.application.delivering import FULL, NO_END, OFF
from qa_worker.application.ports import Rescued
from qa_worker.domain.outcome import Done, Parked
from tests.conftest import Outbox, UnitsOfWork
from tests.post import BROKEN, BUSY, DELIVERED, SLOW, Post, ScriptedChannel

pytestmark = pytest.mark.services

SLOWLY = replace(DELIVERED, duration_ms=9900)


@pytest.fixture
def post(uow: UnitsOfWork) -> Post:
    """An empty workspace."""
    return Post(uow)


def _sent(outbox: Outbox) -> list[uuid.UUID]:
    ids = [message.kwargs["delivery_id"] for message in outbox.sent]
    outbox.sent.clear()
    return [uuid.UUID(str(one)) for one in ids]


def test_endpoints_take_turns_and_none_gets_more_than_its_room(post: Post, outbox: Outbox) -> None:
    flood, quiet = post.endpoint("flood"), post.endpoint("quiet")
    for _ in range(20):
        post.alert(flood)
    (late,) = post.alert(quiet)

    assert post.dispatch() == 3

    sent = [post.row(one) for one in _sent(outbox)]
    assert Counter(row.endpoint_id for row in sent) == {flood: 2, quiet: 1}
    assert late in [row.id for row in sent[:2]], "the first of each endpoint goes before the second of any"
    assert post.dispatch() == 0


def test_no_more_is_under_way_than_all_workers_together_should_have(post: Post) -> None:
    post.limit = 3
    for number in range(5):
        post.alert(post.endpoint(f"endpoint-{number}"))

    assert post.dispatch() == 3
    assert post.dispatch() == 0
    queued = next(row.id for row in post.rows() if row.state == "queued")
    post.send(queued, DELIVERED)
    assert post.dispatch() == 1


def test_a_slow_endpoint_gets_one_at_a_time_and_a_new_one_a_first_one(post: Post, outbox: Outbox) -> None:
    quick, slow, new = post.endpoint("quick"), post.endpoint("slow", took_s=9.9), post.endpoint("new", took_s=None)
    for _ in range(4):
        post.alert(quick, slow, new)

    post.dispatch()

    sent = _sent(outbox)
    assert Counter(post.row(one).endpoint_id for one in sent) == {quick: 2, slow: 1, new: 1}
    post.send(next(one for one in sent if post.row(one).endpoint_id == new), DELIVERED)
    outbox.sent.clear()
    post.dispatch()
    assert [post.row(one).endpoint_id for one in _sent(outbox)] == [new], "it is quick: it has room for two by now"


def test_slow_endpoints_together_get_no_more_than_their_share(post: Post, outbox: Outbox) -> None:
    """Eight receivers that answer 200 after 9.9 s used to fill 32 slots, four each."""
    post.rules = replace(post.rules, slow_in_flight=3)
    slow = [post.endpoint(f"slow-{number}", took_s=9.9) for number in range(6)]
    quick = post.endpoint("quick")
    longest_due = [post.alert(endpoint)[0] for endpoint in slow][:3]
    for _ in range(2):
        post.alert(*slow, quick)

    post.dispatch()

    sent = _sent(outbox)
    assert [one for one in sent if post.row(one).endpoint_id != quick] == longest_due
    assert len(sent) == 5
    # The place of one that ends goes to the slow one that has waited longest, and not to its own next.
    post.send(longest_due[0], SLOWLY)
    assert outbox.sent == []
    assert post.dispatch() == 1
    assert [post.row(one).endpoint_id for one in _sent(outbox)] == [slow[3]]


def test_messages_past_the_dispatcher_get_slow_endpoints_no_more_either(post: Post) -> None:
    post.rules = replace(post.rules, slow_in_flight=1)
    first, second = post.alert(post.endpoint("one", took_s=9.9), post.endpoint("two", took_s=9.9))
    refused: list[object] = []

    def meanwhile(_parcel: Parcel) -> None:
        refused.append(post.send(second, DELIVERED))

    post.send_with(first, ScriptedChannel([SLOWLY], on_send=meanwhile))

    (held,) = refused
    assert isinstance(held, Parked)
    assert held.reason == FULL
    assert post.send(second, DELIVERED) == Done("delivered")


def test_an_endpoint_turns_slow_with_one_answer_and_quick_again_with_several(post: Post) -> None:
    endpoint = post.endpoint()

    def took(answer: Answer) -> float:
        (delivery,) = post.alert(endpoint)
        post.make_due()
        post.send(delivery, answer)
        return round(post.seen(endpoint).health.took_s or 0, 2)

    assert [took(DELIVERED) for _ in range(2)] == [0.06, 0.06], "where all are quick only news is written"
    assert took(SLOW) == 5.03, "a timeout holds a slot, too"
    assert [took(DELIVERED) for _ in range(4)] == [2.52, 1.27, 1.27, 1.27]


def test_live_alerts_go_before_replayed_ones(post: Post, outbox: Outbox) -> None:
    endpoint = post.endpoint()
    replayed = [post.alert(endpoint)[0] for _ in range(5)]
    post.change(deliveries, lane="backlog", not_before=func.now() - timedelta(hours=1))
    (live,) = post.alert(endpoint)

    post.dispatch()

    first, second = _sent(outbox)
    assert first == live
    assert second in replayed


def test_what_is_not_due_or_not_wanted_stays(post: Post) -> None:
    later, off, paused = post.endpoint("later"), post.endpoint("off"), post.endpoint("paused")
    post.alert(later, off, paused)
    with post.uow.engine.begin() as connection:
        soon = func.now() + timedelta(seconds=60)
        connection.execute(update(deliveries).where(deliveries.c.endpoint_id == later).values(not_before=soon))
        connection.execute(update(endpoints).where(endpoints.c.id == paused).values(paused_until=soon))

    assert post.dispatch() == 1


def test_new_alerts_are_sent_at_once_as_far_as_there_is_room(post: Post) -> None:
    endpoint, other = post.endpoint(), post.endpoint("other")
    first = post.alert(endpoint, other)
    more = [post.alert(endpoint)[0] for _ in range(3)]

    with post.uow() as work:
        queued = work.deliveries.queue_new([*first, *more], post.rules, limit=50)
        again = work.deliveries.queue_new([*first, *more], post.rules, limit=50)
        work.commit()

    assert len(queued) == 3
    assert set(first) <= set(queued)
    assert again == []


def test_what_waits_for_an_endpoint_that_is_off_dies_with_a_letter(post: Post) -> None:
    endpoint, other = post.endpoint(), post.endpoint("other")
    delivery, kept = post.alert(endpoint, other)
    with post.uow.engine.begin() as connection:
        connection.execute(update(endpoints).where(endpoints.c.id == endpoint).values(state="disabled"))

    assert post.dispatch() == 1
    post.dispatch()

    assert (post.row(delivery).state, post.row(kept).state) == ("dead", "queued")
    (letter,) = post.letters()
    assert (letter.ref_id, letter.reason, letter.attempts) == (delivery, OFF, 0)
    assert letter.first_error == letter.last_error == "The endpoint is switched off."


def _waits_in_vain(post: Post, endpoint: uuid.UUID, *, age_s: float = 167, due_for_s: float = 101) -> uuid.UUID:
    """A delivery that was tried once, that old, whose next try is due since then; its endpoint is left alone.

    Two waits of 12 and 24 s at most, three tries of 10 s and the longest pause, of 100 s, are a patience of 166 s.
    """
    (delivery,) = post.alert(endpoint)
    post.send(delivery, BROKEN)
    with post.uow.engine.begin() as connection:
        born, due = func.now() - timedelta(seconds=age_s), func.now() - timedelta(seconds=due_for_s)
        row = update(deliveries).where(deliveries.c.id == delivery)
        connection.execute(row.values(created_at=born, not_before=due))
    _leave_alone(post)
    return delivery


def _leave_alone(post: Post) -> None:
    """Every endpoint has failed too often by now."""
    post.change(endpoints, consecutive_failures=7, paused_until=func.now() + timedelta(seconds=600))


def test_an_alert_waits_for_a_failing_endpoint_no_longer_than_its_tries_can_take(post: Post) -> None:
    endpoint = post.endpoint()
    old, fresh = _waits_in_vain(post, endpoint), _waits_in_vain(post, endpoint, age_s=165)

    assert post.dispatch() == 0

    assert (post.row(old).state, post.row(fresh).state) == ("dead", "pending")
    (letter,) = post.letters()
    assert (letter.ref_id, letter.reason, letter.attempts) == (old, NO_END, 1)
    assert letter.first_error == letter.last_error == "The receiver answered 500."


def test_an_alert_is_not_given_up_before_its_last_try_was_due_and_had_its_chance(post: Post) -> None:
    endpoint = post.endpoint()
    ahead = _waits_in_vain(post, endpoint, age_s=10_000, due_for_s=-1)
    behind_a_pause = _waits_in_vain(post, endpoint, age_s=10_000, due_for_s=99)

    post.dispatch()

    assert {post.row(one).state for one in (ahead, behind_a_pause)} == {"pending"}
    assert post.letters() == []


def test_an_alert_that_was_never_tried_waits_until_its_endpoint_works_or_is_switched_off(post: Post) -> None:
    """Behind others, or as a replay, it may not have had its turn."""
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    long_ago = func.now() - timedelta(days=3)
    post.change(deliveries, created_at=long_ago, not_before=long_ago, lane="backlog")
    _leave_alone(post)

    post.dispatch()

    assert post.row(delivery).state == "pending"
    post.change(endpoints, state="disabled")
    post.dispatch()
    assert [(letter.ref_id, letter.reason) for letter in post.letters()] == [(delivery, OFF)]


def test_what_was_parked_counts_as_tried(post: Post) -> None:
    """One that asks for time for ever is a failing endpoint like any other."""
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    post.send(delivery, BUSY)
    long_ago = func.now() - timedelta(days=1)
    post.change(deliveries, created_at=long_ago, not_before=long_ago)
    _leave_alone(post)

    post.dispatch()

    assert post.row(delivery).attempt == 0
    assert [(letter.reason, letter.last_error) for letter in post.letters()] == [(NO_END, "Fewer alerts.")]


def test_an_old_alert_of_an_endpoint_that_works_is_no_dead_letter(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())
    post.change(deliveries, created_at=func.now() - timedelta(days=3))

    assert post.dispatch() == 1
    assert post.send(delivery, DELIVERED) == Done("delivered")
    assert post.letters() == []


def test_a_message_that_the_broker_lost_is_sent_again(post: Post, outbox: Outbox) -> None:
    (delivery,) = post.alert(post.endpoint())
    post.dispatch()
    assert _sent(outbox) == [delivery]
    time.sleep(0.05)

    assert post.rescue(waiting=1) == Rescued(), "its message still lies in the broker"
    assert post.rescue() == Rescued(resent=1)
    assert outbox.sent == [messages.send_alert(delivery)]


def test_a_dead_workers_delivery_is_sent_again_under_the_same_id(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())
    killed = ScriptedChannel([KilledWorkerError()])
    with pytest.raises(KilledWorkerError):
        post.send_with(delivery, killed)
    post.change(deliveries, state="running", lease_token=uuid.uuid4(), lease_until=func.now() - timedelta(seconds=1))

    assert post.rescue() == Rescued(freed=1)
    post.make_due()
    survivor = ScriptedChannel([DELIVERED])
    assert post.send_with(delivery, survivor) == Done("delivered")

    assert killed.parcels[0].message_id == survivor.parcels[0].message_id
    assert killed.parcels[0].body == survivor.parcels[0].body


def test_a_delivery_that_kills_its_workers_ends_as_a_dead_letter(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())
    post.change(
        deliveries,
        state="running",
        attempt=3,
        started_at=func.now(),
        lease_token=uuid.uuid4(),
        lease_until=func.now() - timedelta(seconds=1),
    )

    assert post.rescue() == Rescued(buried=1)

    assert post.row(delivery).state == "dead"
    (letter,) = post.letters()
    assert (letter.reason, letter.attempts) == ("abandoned", 3)


def test_nothing_stuck_is_nothing_done(post: Post, outbox: Outbox) -> None:
    assert post.rescue() == Rescued()
    assert post.dispatch() == 0
    assert outbox.sent == []


class KilledWorkerError(Exception):
    """Stands for a process that ends in the middle of a delivery."""
