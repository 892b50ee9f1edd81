from __future__ import annotations

import json
import math
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from qa_worker.adapters.claude.batch_draft import params
from qa_worker.adapters.claude.batches import ClaudeBatches
from qa_worker.adapters.claude.request import body
from qa_worker.application.batching import ItemResult
from qa_worker.application.judging import JudgeRequest
from qa_worker.domain.batch import Counts, ProviderBatch, ResultKind
from qa_worker.domain.evaluation import Assessment
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from tests.domain.grading_samples import CALL, RUBRIC, saying
from tests.servers import behaviours as does
from tests.servers.batches import Outcome
from tests.servers.messages_api import MessagesServer

MODEL = "claude-haiku-5-5"
REQUEST = JudgeRequest(CALL, RUBRIC, Evidence(), JudgeSpec(JudgeKind.CLAUDE, model=MODEL), "workspace-1")


@pytest.fixture(scope="module")
def running() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


@pytest.fixture
def server(running: MessagesServer) -> MessagesServer:
    running.reset()
    return running


@pytest.fixture
def batches(server: MessagesServer) -> Iterator[ClaudeBatches]:
    made = ClaudeBatches("sk-test\n", base_url=server.url)
    yield made
    made.close()


def sent(batches: ClaudeBatches, *custom_ids: str, request: JudgeRequest = REQUEST) -> ProviderBatch | Failure:
    with batches.draft() as draft:
        for custom_id in custom_ids:
            assert draft.add(custom_id, request)
        return draft.send()


def created(batches: ClaudeBatches, *custom_ids: str) -> ProviderBatch:
    made = sent(batches, *custom_ids)
    assert isinstance(made, ProviderBatch)
    return made


def results(batches: ClaudeBatches, provider_id: str) -> dict[str, ItemResult]:
    found: dict[str, ItemResult] = {}
    for one in batches.results(provider_id):
        assert isinstance(one, ItemResult)
        found[one.custom_id] = one
    return found


def test_a_batch_goes_its_way_from_the_draft_to_the_results(server: MessagesServer, batches: ClaudeBatches) -> None:
    server.batches.ends_after_s = math.inf
    made = created(batches, "a", "b")
    assert (made.request_count, made.ended) == (2, False)
    assert made.expires_at == made.created_at + timedelta(hours=24)
    assert batches.status(made.id) == made

    server.batches.end_all()
    ended = batches.status(made.id)
    assert isinstance(ended, ProviderBatch)
    assert (ended.ended, ended.counts, ended.request_count) == (True, Counts(succeeded=2), 2)

    answer = batches.read(results(batches, made.id)["a"], rubric=RUBRIC, model=MODEL, provider_id=made.id)
    assert isinstance(answer.result, Assessment)
    assert (answer.batch, answer.model, answer.request_id) == (True, MODEL, made.id)
    assert answer.usage.prompt_tokens > 0


def test_an_item_is_a_single_request_whose_static_part_is_cached_for_an_hour(
    server: MessagesServer, batches: ClaudeBatches
) -> None:
    made = created(batches, "a")

    (item,) = server.batches.batches[made.id].items

    single = body(REQUEST)
    assert item["params"] == params(REQUEST)
    assert {**item["params"], "system": single["system"]} == single
    assert item["params"]["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


def test_results_come_in_any_order_and_are_matched_by_their_ids(batches: ClaudeBatches) -> None:
    ids = [uuid.uuid4().hex for _ in range(50)]
    made = created(batches, *ids)

    found = list(results(batches, made.id))

    assert found != ids
    assert sorted(found) == sorted(ids)


def test_items_end_each_in_their_own_way(server: MessagesServer, batches: ClaudeBatches) -> None:
    server.batches.outcomes = {
        "late": Outcome("expired"),
        "gone": Outcome("canceled"),
        "bad": Outcome("errored", error_type="invalid_request_error"),
        "busy": Outcome("errored", error_type="overloaded_error"),
        "strange": Outcome("errored", error_type="a new kind of error"),
        "refused": Outcome(answer=does.refusal("cyber")),
        "cut": Outcome(answer=does.Answer(stop_reason="max_tokens", text="{")),
    }
    made = created(batches, "good", *server.batches.outcomes)

    found = results(batches, made.id)

    assert {name: one.kind.value for name, one in found.items()} == {
        "good": "succeeded", "late": "expired", "gone": "canceled", "bad": "errored", "busy": "errored",
        "strange": "errored", "refused": "succeeded", "cut": "succeeded",
    }  # fmt: skip
    failures = {name: one.failure for name, one in found.items() if one.failure is not None}
    assert {name: (one.kind, one.code) for name, one in failures.items()} == {
        "bad": (FailureKind.REJECTED, "batch_invalid_request_error"),
        "busy": (FailureKind.OVERLOADED, "batch_overloaded_error"),
        "strange": (FailureKind.TRANSIENT, "batch_error"),
    }
    for name, code in (("refused", "refusal:cyber"), ("cut", "max_tokens")):
        answer = batches.read(found[name], rubric=RUBRIC, model=MODEL, provider_id=made.id)
        assert isinstance(answer.result, Failure)
        assert (answer.result.kind, answer.result.code) == (FailureKind.UNREADABLE, code)


def test_what_the_provider_says_of_an_error_stays_out_of_our_words(
    server: MessagesServer, batches: ClaudeBatches
) -> None:
    server.batches.default = Outcome("errored", error_type="api_error", message="secret transcript")

    (found,) = results(batches, created(batches, "a").id).values()

    assert found.failure is not None
    assert "secret" not in found.failure.message


def test_a_draft_is_full_when_its_body_would_be_too_long(server: MessagesServer) -> None:
    item = len(json.dumps({"custom_id": "a", "params": params(REQUEST)}))
    batches = ClaudeBatches("sk-test", base_url=server.url, max_bytes=2 * item + len(b'{"requests":[,]}'))
    with batches.draft() as draft:
        assert draft.add("a", REQUEST)
        assert draft.add("b", REQUEST)
        assert not draft.add("c", REQUEST)
        made = draft.send()
    batches.close()

    assert isinstance(made, ProviderBatch)
    assert (draft.count, made.request_count) == (2, 2)


def test_the_body_that_is_sent_is_as_long_as_it_was_announced_and_takes_no_memory(
    server: MessagesServer, batches: ClaudeBatches
) -> None:
    long = replace(REQUEST, call=replace(CALL, transcript=saying(*["Wörter \U0001f600 " * 2000] * 4)))
    ids = [f"item-{number}" for number in range(30)]

    made = sent(batches, *ids, request=long)

    assert isinstance(made, ProviderBatch)
    assert [item["custom_id"] for item in server.batches.batches[made.id].items] == ids
    assert all(item["params"] == params(long) for item in server.batches.batches[made.id].items)


def test_a_lost_answer_on_create_is_no_proof_and_the_batch_can_be_found(
    server: MessagesServer, batches: ClaudeBatches
) -> None:
    server.batches.fail("create", does.Cut("nothing"))
    before = datetime.now(UTC)

    failure = sent(batches, "a", "b")

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "connection")
    assert server.batches.calls["create"] == 1, "the SDK's own retries are off"
    listed = batches.since(before)
    assert isinstance(listed, list)
    assert [one.request_count for one in listed] == [2]


@pytest.mark.parametrize("where", ["headers", "body"])
def test_an_answer_that_is_cut_is_a_lost_one(server: MessagesServer, batches: ClaudeBatches, where: Any) -> None:
    server.batches.fail("create", does.Cut(where))

    failure = sent(batches, "a")

    assert isinstance(failure, Failure)
    assert (failure.kind, len(server.batches.batches)) == (FailureKind.TRANSIENT, 1)


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (does.overloaded(), FailureKind.OVERLOADED, "http_529"),
        (does.rate_limited("30"), FailureKind.RATE_LIMITED, "http_429"),
        (does.spend_cap(), FailureKind.SPEND_CAP, "enforced_spend_limit_reached"),
        (does.own_spend_limit(), FailureKind.SPEND_CAP, "http_400"),
        (does.unauthorised(), FailureKind.BLOCKED, "http_401"),
        (does.Fault("not_found", 404, "not_found_error", "No."), FailureKind.BLOCKED, "http_404"),
        (does.Fault("no_method", 405, "api_error", "No."), FailureKind.REJECTED, "http_405"),
        (does.Fault("no_batches", 501, "api_error", "No."), FailureKind.TRANSIENT, "http_501"),
        (does.Fault("too_large", 413, "request_too_large", "No."), FailureKind.REJECTED, "http_413"),
    ],
)
def test_faults_are_classified_in_every_operation(
    server: MessagesServer, batches: ClaudeBatches, fault: does.Fault, kind: FailureKind, code: str
) -> None:
    made = created(batches, "a")
    for operation in ("create", "list", "retrieve", "cancel", "results"):
        server.batches.fail(operation, fault)

    failures = [
        sent(batches, "b"),
        batches.since(made.created_at),
        batches.status(made.id),
        batches.cancel(made.id),
        *batches.results(made.id),
    ]

    assert [(one.kind, one.code) for one in failures if isinstance(one, Failure)] == [(kind, code)] * 5
    assert len(server.batches.batches) == 1


def test_batches_are_listed_page_by_page_back_to_a_time(server: MessagesServer, batches: ClaudeBatches) -> None:
    made = [created(batches, "a") for _ in range(205)]

    listed = batches.since(made[3].created_at)

    assert isinstance(listed, list)
    assert {one.id for one in listed} == {one.id for one in made if one.created_at >= made[3].created_at}
    assert server.batches.calls["list"] == 3


def test_a_batch_can_be_cancelled_and_its_items_come_back_as_canceled(
    server: MessagesServer, batches: ClaudeBatches
) -> None:
    server.batches.ends_after_s = math.inf
    made = created(batches, "a")

    assert batches.cancel(made.id) is None
    assert batches.status(made.id) != made
    assert results(batches, made.id)["a"].kind is ResultKind.CANCELED
    again = batches.cancel(made.id)
    assert again is not None
    assert again.kind is FailureKind.REJECTED


def test_results_before_the_end_are_a_failure(server: MessagesServer, batches: ClaudeBatches) -> None:
    server.batches.ends_after_s = math.inf
    made = created(batches, "a")

    (failure,) = batches.results(made.id)

    assert isinstance(failure, Failure)
    assert failure.code == "http_404"


def test_results_that_are_cut_give_what_came_and_then_the_failure(
    server: MessagesServer, batches: ClaudeBatches
) -> None:
    made = created(batches, *(f"item-{number}" for number in range(40)))
    batches.status(made.id)
    server.batches.fail("results", does.Cut("body"))

    *good, last = batches.results(made.id)

    assert 10 < len(good) < 30
    assert all(isinstance(one, ItemResult) for one in good)
    assert isinstance(last, Failure)
    assert last.kind is FailureKind.TRANSIENT
    assert len(results(batches, made.id)) == 40


def test_results_can_be_left_in_the_middle(batches: ClaudeBatches) -> None:
    made = created(batches, *(f"item-{number}" for number in range(40)))
    batches.status(made.id)

    reading = batches.results(made.id)
    next(reading)
    reading.close()

    assert len(results(batches, made.id)) == 40


def test_a_server_that_is_away_is_transient(server: MessagesServer) -> None:
    server.stop()
    batches = ClaudeBatches("sk-test", base_url=server.url)
    failure = batches.status("msgbatch_1")
    batches.close()
    server.start()

    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.TRANSIENT


@pytest.mark.parametrize("content", [b"<html>proxy</html>", b"[]", b'{"data": [{"id": "x"}]}', b'{"data": 7}'])
def test_an_answer_that_is_none_is_a_failure(content: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        batches = ClaudeBatches("sk-test", base_url=f"http://127.0.0.1:{proxy.server_port}")
        answers = [batches.status("msgbatch_1"), batches.since(datetime.now(UTC)), *batches.results("msgbatch_1")]
        batches.close()
        proxy.shutdown()

    assert [one.code for one in answers if isinstance(one, Failure)] == ["bad_response"] * 3
