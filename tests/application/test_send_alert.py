"""Sending one alert: the order of claim, send and record, and what follows each answer. Real database, scripted channel."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, update

from qa_worker import messages
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import deliveries, endpoints
from qa_worker.adapters.secrets import FernetVault, new_key
from qa_worker.application._delivery_record import GONE_REASON
from qa_worker.application.channels import Answer, Parcel
from qa_worker.application.delivering import FULL, OFF, PAUSED
from qa_worker.application.manage_endpoints import rotate_secret
from qa_worker.application.ports import UnitOfWork
from qa_worker.application.send_alert import LEASE_LOST, send_alert
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt, Skipped
from qa_worker.domain.work import Lease
from tests.conftest import Outbox, UnitsOfWork
from tests.post import (
    BODY,
    BROKEN,
    BUSY,
    DELIVERED,
    GONE,
    REFUSED,
    SLOW,
    Post,
    ScriptedChannel,
)

pytestmark = pytest.mark.services


@pytest.fixture
def post(uow: UnitsOfWork) -> Post:
    """An empty workspace."""
    return Post(uow)


def test_an_alert_that_arrives_is_stored_with_its_try(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())

    assert post.send(delivery, DELIVERED) == Done("delivered")

    row = post.row(delivery)
    assert (row.state, row.attempt, row.response_status, row.error_kind) == ("done", 1, 200, None)
    assert row.delivered_at is not None
    (attempt,) = post.tries()
    assert (attempt.result, attempt.status_code, attempt.duration_ms, attempt.response_head) == (
        "delivered",
        200,
        12,
        "ok",
    )
    assert post.letters() == []


def test_what_is_sent_is_what_was_raised_on_every_try(post: Post) -> None:
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    channel = ScriptedChannel([BROKEN, SLOW, DELIVERED])
    for _ in range(3):
        post.send_with(delivery, channel)
        post.clock.advance(30)
        post.make_due()

    first, *later = channel.parcels
    assert first.body == BODY
    assert first.target == "https://hooks.example.com/ops"
    assert first.secrets[0].startswith("whsec_")
    assert len(later) == 2
    for parcel in later:
        assert (parcel.body, parcel.message_id, parcel.secrets) == (BODY, first.message_id, first.secrets)
        assert parcel.sent_at > first.sent_at
    assert "." not in first.message_id


def test_a_message_that_comes_twice_sends_once(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())
    channel = ScriptedChannel([DELIVERED])

    assert post.send_with(delivery, channel) == Done("delivered")
    assert post.send_with(delivery, channel) == Skipped("already delivered")
    assert len(channel.parcels) == 1


def test_a_delivery_that_nobody_knows_is_skipped(post: Post) -> None:
    assert post.send(uuid.uuid4(), DELIVERED) == Skipped("no such delivery")


def test_webhook_retry_on_5xx(post: Post) -> None:
    """A receiver that fails is tried again by the schedule, and when the schedule is used up the alert is a dead letter."""
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    now = post.clock.now()

    assert post.send(delivery, BROKEN) == RetryAt(now + timedelta(seconds=10), "http_500")
    assert post.send(delivery, DELIVERED) == Skipped("waiting for its next attempt")
    post.make_due()
    assert post.send(delivery, BROKEN) == RetryAt(now + timedelta(seconds=20), "http_500")
    post.make_due()
    assert post.send(delivery, SLOW) == Dead("timeout")
    assert post.send(delivery, DELIVERED) == Skipped("given up on before")

    row = post.row(delivery)
    assert (row.state, row.attempt, row.error_code) == ("dead", 3, "timeout")
    assert [(one.attempt, one.result, one.error_code) for one in post.tries()] == [
        (1, "retry", "http_500"),
        (2, "retry", "http_500"),
        (3, "dead", "timeout"),
    ]
    (letter,) = post.letters()
    assert (letter.kind, letter.ref_id, letter.endpoint_id) == ("alert", delivery, endpoint)
    assert (letter.queue, letter.task, letter.reason, letter.attempts) == ("send-alert", "send-alert", "timeout", 3)
    assert (letter.first_error, letter.last_error) == ("The receiver answered 500.", "No answer.")
    assert letter.payload == {"delivery_id": str(delivery), "alert_id": str(row.alert_id)}
    assert (letter.state, letter.announced_at) == ("open", None)


def test_a_receiver_that_recovers_gets_the_alert(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())
    post.send(delivery, BROKEN)
    post.make_due()

    assert post.send(delivery, DELIVERED) == Done("delivered")
    assert post.row(delivery).error_kind is None
    assert post.letters() == []


def test_what_a_receiver_refuses_is_not_tried_again(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())

    assert post.send(delivery, REFUSED) == Dead("http_404")
    (letter,) = post.letters()
    assert (letter.reason, letter.attempts, letter.first_error) == ("http_404", 1, "The receiver answered 404.")


def test_a_limit_of_the_receiver_costs_no_attempt_and_pauses_its_endpoint(post: Post) -> None:
    endpoint = post.endpoint()
    first, second = [*post.alert(endpoint), *post.alert(endpoint)]

    # retry-after, plus a fifth of the schedule's first wait
    assert post.send(first, BUSY) == Parked(post.clock.now() + timedelta(seconds=42), "http_429")
    held = post.send(second, DELIVERED)

    assert isinstance(held, Parked)
    assert held.reason == PAUSED
    assert post.row(first).attempt == 0
    assert [one.result for one in post.tries()] == ["parked"]
    post.make_due()
    assert post.send(first, DELIVERED) == Done("delivered")


def test_a_receiver_that_is_gone_is_switched_off_and_the_others_are_told(post: Post, outbox: Outbox) -> None:
    gone, other, third = post.endpoint("gone"), post.endpoint("other"), post.endpoint("third")
    delivery, waiting = [*post.alert(gone), *post.alert(gone)]

    assert post.send(delivery, GONE) == Dead("http_410")

    seen = post.seen(gone)
    assert not seen.active
    assert "410" in seen.disabled_reason
    assert {letter.ref_id: letter.reason for letter in post.letters()} == {delivery: "http_410", waiting: OFF}
    told = {row.endpoint_id: row for row in post.rows() if row.endpoint_id != gone}
    assert set(told) == {other, third}
    assert {row.state for row in told.values()} == {"queued"}
    assert sorted(map(str, outbox.sent)) == sorted(str(messages.send_alert(row.id)) for row in told.values())
    # Whoever was under way to it meanwhile changes nothing more, and nothing more is sent to it.
    post.change(deliveries, state="pending", error_kind=None, not_before=func.now())
    assert post.send(waiting, DELIVERED) == Dead(OFF)
    assert post.dispatch() == 2


def test_the_alert_about_a_switched_off_endpoint_says_which_and_why(post: Post) -> None:
    gone, other = post.endpoint("gone"), post.endpoint("other")
    (delivery,) = post.alert(gone)
    post.send(delivery, GONE)
    (told,) = [row for row in post.rows() if row.endpoint_id == other]
    channel = ScriptedChannel([DELIVERED])

    assert post.send_with(told.id, channel) == Done("delivered")

    (parcel,) = channel.parcels
    assert b'"type":"endpoint.disabled"' in parcel.body
    assert b'"name":"gone"' in parcel.body
    assert b"It answered 410" in parcel.body
    assert b"hooks.example.com" not in parcel.body


def test_an_endpoint_that_failed_for_days_is_switched_off(post: Post) -> None:
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    post.send(delivery, BROKEN)
    post.make_due()
    long_ago = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 2000)
    post.change(endpoints, failing_since=long_ago, consecutive_failures=2)

    assert isinstance(post.send(delivery, BROKEN), RetryAt)

    seen = post.seen(endpoint)
    assert not seen.active
    assert "3 times in a row" in seen.disabled_reason
    assert [(letter.ref_id, letter.reason) for letter in post.letters()] == [(delivery, OFF)]


def test_a_workspaces_only_endpoint_is_not_switched_off_in_silence(post: Post) -> None:
    """There is nobody else to be told, so whoever reads the log is."""
    first, second = post.alert(post.endpoint()) + post.alert(post.endpoint("other"))

    post.send(first, GONE)
    post.send(second, GONE)

    assert [(one.endpoint.name, one.told) for one in post.switched_off] == [("ops", 1), ("other", 0)]
    assert post.switched_off[1].reason == GONE_REASON
    assert post.switched_off[1].dead == 1, "the alert about the first one was waiting for it"


def test_failures_in_a_row_give_an_endpoint_a_pause_and_then_one_probe(post: Post, outbox: Outbox) -> None:
    endpoint = post.endpoint()
    waiting = [post.alert(endpoint)[0] for _ in range(6)]
    for delivery in waiting[:4]:
        post.send(delivery, SLOW)

    held = post.send(waiting[4], DELIVERED)
    assert isinstance(held, Parked)
    assert held.reason == PAUSED
    assert post.dispatch() == 0

    post.make_due()
    outbox.sent.clear()
    assert post.dispatch() == 1, "one probe, though the endpoint has room for two"
    post.make_due()
    assert post.dispatch() == 0
    (probe,) = [row.id for row in post.rows() if row.state == "queued"]
    before = post.seen(endpoint).health.consecutive_failures
    post.send(probe, SLOW)
    assert post.seen(endpoint).health.consecutive_failures == before + 1
    assert post.dispatch() == 0

    post.make_due()
    assert post.dispatch() == 1
    (probe,) = [row.id for row in post.rows() if row.state == "queued"]
    assert post.send(probe, DELIVERED) == Done("delivered")
    assert post.seen(endpoint).health.consecutive_failures == 0
    assert post.dispatch() == 1, "all of its room again"


def test_a_success_ends_the_failures_that_came_while_it_was_under_way(post: Post) -> None:
    endpoint = post.endpoint()
    slow, failing = [*post.alert(endpoint), *post.alert(endpoint)]

    def meanwhile(_parcel: Parcel) -> None:
        assert isinstance(post.send(failing, BROKEN), RetryAt)
        assert post.seen(endpoint).health.consecutive_failures == 1

    assert post.send_with(slow, ScriptedChannel([DELIVERED], on_send=meanwhile)) == Done("delivered")

    health = post.seen(endpoint).health
    assert (health.consecutive_failures, health.failing_since) == (0, None)


def test_a_success_cuts_no_pause_short_that_was_asked_for_meanwhile(post: Post) -> None:
    endpoint = post.endpoint()
    slow, held = [*post.alert(endpoint), *post.alert(endpoint)]

    def meanwhile(_parcel: Parcel) -> None:
        assert isinstance(post.send(held, BUSY), Parked)

    assert post.send_with(slow, ScriptedChannel([DELIVERED], on_send=meanwhile)) == Done("delivered")

    assert post.seen(endpoint).health.paused_at(post.clock.now())
    assert post.dispatch() == 0


def test_a_success_that_is_no_news_writes_nothing_that_others_wait_for(post: Post) -> None:
    endpoint = post.endpoint()
    first, second = [*post.alert(endpoint), *post.alert(endpoint)]
    post.send(first, DELIVERED)
    noted = post.seen(endpoint).last_success_at

    post.send(second, DELIVERED)

    assert noted is not None
    assert post.seen(endpoint).last_success_at == noted


def test_no_more_than_its_room_is_under_way_to_one_endpoint(post: Post) -> None:
    endpoint = post.endpoint()
    waiting = [post.alert(endpoint)[0] for _ in range(5)]
    refused: list[object] = []

    def meanwhile(_parcel: Parcel) -> None:
        # One is being sent, this is the second; the third has no room.
        refused.append(post.send_with(waiting[1], ScriptedChannel([DELIVERED], on_send=third)))

    def third(_parcel: Parcel) -> None:
        refused.append(post.send(waiting[2], DELIVERED))

    post.send_with(waiting[0], ScriptedChannel([DELIVERED], on_send=meanwhile))

    held, done = refused
    assert isinstance(held, Parked)
    assert held.reason == FULL
    assert done == Done("delivered")
    assert post.row(waiting[2]).attempt == 0
    assert post.tries()[-1].delivery_id in waiting[:2]


def test_many_workers_never_send_more_than_an_endpoint_has_room_for(post: Post) -> None:
    endpoint = post.endpoint()
    waiting = [post.alert(endpoint)[0] for _ in range(12)]
    lock, under_way, most = threading.Lock(), [0], [0]
    begun = threading.Barrier(6)

    class Counting:
        def check(self, target: str) -> str:
            return target

        def send(self, parcel: Parcel) -> Answer:
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            threading.Event().wait(0.02)
            with lock:
                under_way[0] -= 1
            return DELIVERED

    sending = Counting()

    def work(mine: list[uuid.UUID]) -> None:
        begun.wait()
        left = set(mine)
        while left:
            # What has no room comes again, as its message would.
            left -= {one for one in mine if one in left and post.send_with(one, sending) == Done("delivered")}

    threads = [threading.Thread(target=work, args=(waiting[start::6],)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 <= most[0] <= 2
    assert [row.state for row in post.rows()] == ["done"] * 12
    assert [one.result for one in post.tries()] == ["delivered"] * 12


def test_the_end_of_a_delivery_sends_the_next_of_its_endpoint_at_once(post: Post, outbox: Outbox) -> None:
    endpoint = post.endpoint()
    waiting = [post.alert(endpoint)[0] for _ in range(4)]

    post.send(waiting[0], DELIVERED)

    assert outbox.sent == [messages.send_alert(waiting[1])]
    assert [post.row(one).state for one in waiting] == ["done", "queued", "pending", "pending"]


def test_one_message_may_lead_to_several_deliveries_of_an_endpoint(post: Post, outbox: Outbox) -> None:
    endpoint = post.endpoint()
    waiting = [post.alert(endpoint)[0] for _ in range(5)]
    post.in_a_row = 3
    channel = ScriptedChannel([DELIVERED], engine=post.uow.engine)

    outcomes = send_alert(delivery_id=waiting[0], sending=post.sending(channel))

    assert outcomes == [Done("delivered")] * 3
    assert [post.row(one).state for one in waiting] == ["done", "done", "done", "queued", "pending"]
    assert outbox.sent == [messages.send_alert(waiting[3])], "the slot is given back, and the rest has its message"
    assert len({parcel.message_id for parcel in channel.parcels}) == 3


def test_a_turn_ends_with_a_failure_and_after_a_while(post: Post) -> None:
    endpoint = post.endpoint()
    waiting = [post.alert(endpoint)[0] for _ in range(6)]
    post.in_a_row = 10
    failing = post.sending(ScriptedChannel([DELIVERED, BROKEN, DELIVERED]))
    slow = post.sending(ScriptedChannel([DELIVERED], on_send=lambda _parcel: post.clock.advance(1.5)))

    first = send_alert(delivery_id=waiting[0], sending=failing)
    second = send_alert(delivery_id=waiting[2], sending=slow)

    assert [type(outcome) for outcome in first] == [Done, RetryAt]
    assert second == [Done("delivered")] * 2


def test_a_zombies_late_result_is_dropped(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())

    def overtaken(_parcel: Parcel) -> None:
        post.change(deliveries, lease_until=func.now() - timedelta(seconds=1))
        assert post.rescue().freed == 1
        post.make_due()
        assert post.send(delivery, DELIVERED) == Done("delivered")

    assert post.send_with(delivery, ScriptedChannel([BROKEN], on_send=overtaken)) == Skipped(LEASE_LOST)
    assert [one.result for one in post.tries()] == ["abandoned", "delivered"]
    assert post.seen(post.row(delivery).endpoint_id).health.consecutive_failures == 0


def test_writing_the_same_end_twice_changes_nothing(post: Post) -> None:
    """The commit's answer was lost, so that the result is written again: no second try, no second letter."""
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    given = post.sending(ScriptedChannel([REFUSED]))
    records = given.recording.records
    written: list[object] = []

    class Twice(DirectRecords):
        def write(self, what: Callable[[UnitOfWork], None], *, lease: Lease | None = None) -> None:
            assert lease is None
            for _once in range(2):
                records.write(what)
                written.append(what)

    sending = replace(given, recording=replace(given.recording, records=Twice(post.uow)))

    assert send_alert(delivery_id=delivery, sending=sending) == [Dead("http_404")]
    assert len(written) == 2
    assert (len(post.tries()), len(post.letters())) == (1, 1)
    assert post.seen(endpoint).health.consecutive_failures == 1


def test_a_fault_of_our_own_is_raised_and_stands_in_the_row(post: Post) -> None:
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)

    with pytest.raises(ZeroDivisionError):
        post.send(delivery, ZeroDivisionError("secret text"))

    row = post.row(delivery)
    assert (row.state, row.error_code, row.attempt) == ("pending", "internal_error", 1)
    assert "ZeroDivisionError" in row.error_message
    assert "secret" not in row.error_message
    assert post.seen(endpoint).health.consecutive_failures == 0


def test_a_secret_that_no_key_opens_waits_for_its_key_and_blames_nobody(post: Post) -> None:
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    right, post.vault = post.vault, FernetVault([new_key()])

    outcome = post.send(delivery, DELIVERED)

    assert isinstance(outcome, Parked)
    assert (post.row(delivery).error_kind, post.row(delivery).attempt) == ("blocked", 0)
    assert "QA_SECRET_KEYS" in post.row(delivery).error_message
    assert post.seen(endpoint).health.consecutive_failures == 0
    post.vault = right
    post.make_due()
    assert post.send(delivery, DELIVERED) == Done("delivered")


def test_during_a_rotation_a_delivery_is_signed_with_both_secrets(post: Post) -> None:
    (delivery,) = post.alert(post.endpoint())
    new = rotate_secret(workspace="w", name="ops", managing=post.managing())
    channel = ScriptedChannel([DELIVERED])

    post.send_with(delivery, channel)

    assert channel.parcels[0].secrets[0] == new
    assert len(channel.parcels[0].secrets) == 2


def test_a_refused_delivery_that_was_queued_is_pending_again(post: Post) -> None:
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    assert post.dispatch() == 1
    with post.uow.engine.begin() as connection:
        soon = func.now() + timedelta(seconds=60)
        connection.execute(update(endpoints).values(paused_until=soon))

    assert isinstance(post.send(delivery, DELIVERED), Parked)

    row = post.row(delivery)
    assert (row.state, row.wait_reason, row.attempt) == ("pending", PAUSED, 0)
    post.make_due()
    assert post.dispatch() == 1


def test_a_refusal_says_nothing_of_a_blocked_installation(post: Post) -> None:
    """A missing library is the installation's fault: nothing dies of it."""
    (delivery,) = post.alert(post.endpoint())
    missing = Answer(Failure(FailureKind.BLOCKED, "refused_kind", "Apprise is not installed."), 0)

    assert isinstance(post.send(delivery, missing), Parked)
    assert post.letters() == []
