from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.servers import behaviours as does
from tests.servers.batches import Outcome
from tests.servers.messages_api import MessagesServer


@pytest.fixture(scope="module")
def running() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


@pytest.fixture
def server(running: MessagesServer) -> MessagesServer:
    running.reset()
    return running


@pytest.fixture(scope="module")
def sdk(running: MessagesServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="sk-test", base_url=running.url, max_retries=0) as client:
        yield client


@pytest.fixture
def batches(sdk: anthropic.Anthropic, server: MessagesServer) -> Any:
    """The SDK's own batches: what it can read has the API's shape."""
    assert str(sdk.base_url).rstrip("/") == server.url
    return sdk.messages.batches


def item(custom_id: str, text: str = "[0] agent: Hello.", **changes: Any) -> dict[str, Any]:
    params = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "params": params | changes}


def results(batches: Any, batch_id: str) -> dict[str, Any]:
    return {entry.custom_id: entry.result for entry in batches.results(batch_id)}


def test_a_batch_runs_from_in_progress_to_its_results(server: MessagesServer, batches: Any) -> None:
    server.batches.ends_after_s = math.inf
    made = batches.create(requests=[item("a"), item("b")])
    assert (made.processing_status, made.request_counts.processing, made.results_url) == ("in_progress", 2, None)
    assert batches.retrieve(made.id).processing_status == "in_progress"
    with pytest.raises(anthropic.AnthropicError):
        batches.results(made.id)
    server.batches.end_all()
    ended = batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.succeeded, ended.request_counts.processing) == ("ended", 2, 0)
    assert ended.ended_at is not None
    found = results(batches, made.id)
    assert {result.type for result in found.values()} == {"succeeded"}
    assert found["a"].message.content[0].text == "Very well."
    assert found["a"].message.usage.service_tier == "batch"


def test_each_item_ends_as_scripted(server: MessagesServer, batches: Any) -> None:
    server.batches.outcomes = {
        "late": Outcome("expired"),
        "bad": Outcome("errored", error_type="invalid_request_error"),
    }
    server.batches.when("refund", Outcome(answer=does.refusal("cyber")))
    made = batches.create(requests=[item("good"), item("late"), item("bad"), item("no", "[0] agent: A refund?")])
    found = results(batches, made.id)
    assert {name: result.type for name, result in found.items()} == {
        "good": "succeeded", "late": "expired", "bad": "errored", "no": "succeeded",
    }  # fmt: skip
    assert found["bad"].error.error.type == "invalid_request_error"
    assert found["no"].message.stop_reason == "refusal"
    counts = batches.retrieve(made.id).request_counts
    assert (counts.succeeded, counts.errored, counts.expired, counts.canceled) == (2, 1, 1, 0)


def test_results_come_in_another_order(batches: Any) -> None:
    ids = [f"item-{number}" for number in range(50)]
    made = batches.create(requests=[item(custom_id) for custom_id in ids])
    found = list(results(batches, made.id))
    assert found != ids
    assert sorted(found) == sorted(ids)


def test_parameters_are_checked_late(batches: Any) -> None:
    made = batches.create(requests=[item("a", stream=True), item("b", max_tokens=0), item("c", temperature=1)])
    errors = {result.error.error.type for result in results(batches, made.id).values()}
    assert errors == {"invalid_request_error"}


@pytest.mark.parametrize("requests", [[], [item("a"), item("a")], [item("a:b")], [item("a" * 65)]])
def test_what_cannot_be_a_batch_is_refused(server: MessagesServer, batches: Any, requests: list[Any]) -> None:
    with pytest.raises(anthropic.BadRequestError):
        batches.create(requests=requests)
    assert not server.batches.batches


def test_a_cancelled_batch_ends_with_its_items_canceled(server: MessagesServer, batches: Any) -> None:
    server.batches.ends_after_s = server.batches.cancel_takes_s = math.inf
    made = batches.create(requests=[item("a")])
    cancelled = batches.cancel(made.id)
    assert cancelled.processing_status == "canceling"
    assert cancelled.cancel_initiated_at is not None
    server.batches.end_all()
    assert results(batches, made.id)["a"].type == "canceled"
    with pytest.raises(anthropic.BadRequestError):
        batches.cancel(made.id)


def test_an_ended_batch_can_be_deleted(server: MessagesServer, batches: Any) -> None:
    server.batches.ends_after_s = math.inf
    made = batches.create(requests=[item("a")])
    with pytest.raises(anthropic.BadRequestError):
        batches.delete(made.id)
    server.batches.end_all()
    assert batches.delete(made.id).id == made.id
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(made.id)


def test_the_list_has_pages_newest_first(batches: Any) -> None:
    ids = [batches.create(requests=[item("a")]).id for _ in range(5)]
    page = batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == ([ids[4], ids[3]], True)
    assert [batch.id for batch in batches.list(limit=2)] == list(reversed(ids))
    before = batches.list(limit=2, before_id=ids[0])
    assert [batch.id for batch in before.data] == [ids[2], ids[1]]


def test_a_cut_create_has_made_the_batch_all_the_same(server: MessagesServer, batches: Any) -> None:
    server.batches.fail("create", does.Cut("nothing"))
    with pytest.raises(anthropic.APIConnectionError):
        batches.create(requests=[item("a")])
    assert len(batches.list().data) == 1
    batches.create(requests=[item("a")])
    assert len(batches.list().data) == 2
    assert server.batches.calls["create"] == 2


def test_a_fault_on_create_has_made_nothing(server: MessagesServer, batches: Any) -> None:
    server.batches.fail("create", does.overloaded())
    with pytest.raises(anthropic.OverloadedError):
        batches.create(requests=[item("a")])
    assert not batches.list().data


def test_results_can_be_cut_in_the_middle(server: MessagesServer, batches: Any) -> None:
    made = batches.create(requests=[item(f"item-{number}") for number in range(20)])
    batches.retrieve(made.id)
    server.batches.fail("results", does.Cut("body"))
    headers = {"authorization": "Bearer sk-test"}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/v1/messages/batches/{made.id}/results", headers=headers)
    whole = httpx.get(f"{server.url}/v1/messages/batches/{made.id}/results", headers=headers).text
    assert len([json.loads(line) for line in whole.splitlines()]) == 20


def test_a_key_and_a_known_batch_are_needed(server: MessagesServer, batches: Any) -> None:
    assert httpx.get(f"{server.url}/v1/messages/batches").status_code == 401
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve("msgbatch_0")
