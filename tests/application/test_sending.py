"""Which message sends which work."""

from __future__ import annotations

import uuid
from dataclasses import replace

from qa_worker.application._sending import messages_for, share_of_nudges
from qa_worker.application.ports import WorkRef
from qa_worker.domain.call import CallId, workspace_id
from qa_worker.domain.work import Lane
from qa_worker.messages import BULK, Queue, TaskName

A, B = workspace_id("a"), workspace_id("b")


def _refs(count: int, lane: Lane = Lane.LIVE, workspace: object = A) -> list[WorkRef]:
    assert workspace in (A, B)
    owner = A if workspace == A else B
    return [WorkRef(uuid.uuid4(), CallId(uuid.uuid4()), owner, lane) for _ in range(count)]


def test_live_calls_go_one_by_one_through_the_express_queue() -> None:
    sent = messages_for(_refs(3), under_way={}, in_flight_limit=256)

    assert [(message.task, message.queue) for message in sent] == [(TaskName.EVALUATE_CALL, Queue.EVALUATE_CALL)] * 3


def test_what_can_wait_goes_in_bulk_and_every_id_once() -> None:
    refs = _refs(BULK + 7, Lane.BACKLOG)

    sent = messages_for(refs, under_way={}, in_flight_limit=256)

    assert [message.queue for message in sent] == [Queue.BACKLOG, Queue.BACKLOG]
    ids = [one for message in sent for one in message.kwargs["evaluation_ids"]]
    assert ids == [str(ref.evaluation_id) for ref in refs]
    assert max(len(message.kwargs["evaluation_ids"]) for message in sent) <= BULK


def test_a_workspace_beyond_its_share_gives_way_to_the_others() -> None:
    sent = messages_for([*_refs(40), *_refs(1, workspace=B)], under_way={A: 30}, in_flight_limit=256)

    express = [message for message in sent if message.queue is Queue.EVALUATE_CALL]
    assert len(express) == 2 + 1, "an eighth of 256 is 32: two more of A, and the one of B"
    assert sum(len(message.kwargs.get("evaluation_ids", ())) for message in sent) == 38


def test_what_may_have_killed_its_worker_is_sent_alone() -> None:
    first, suspect, last = _refs(3, Lane.BACKLOG)

    sent = messages_for([first, replace(suspect, alone=True), last], under_way={}, in_flight_limit=256)

    assert [(message.task, message.queue) for message in sent] == [
        (TaskName.EVALUATE_CALL, Queue.BACKLOG),
        (TaskName.EVALUATE_CALLS, Queue.BACKLOG),
    ]
    assert sent[0].kwargs["evaluation_id"] == str(suspect.evaluation_id)
    assert sent[1].kwargs["evaluation_ids"] == [str(first.evaluation_id), str(last.evaluation_id)]


def test_nothing_to_send_is_no_message() -> None:
    assert messages_for([], under_way={}, in_flight_limit=256) == []


def test_no_workspace_takes_more_than_half_of_a_process_by_messages_of_its_own() -> None:
    assert share_of_nudges(256, slots=64) == 32, "an eighth of the limit, as for what is sent"
    assert share_of_nudges(256, slots=32) == 16
    assert share_of_nudges(256, slots=1) == 1
