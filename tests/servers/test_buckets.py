from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.servers.behaviours import Fault
from tests.servers.buckets import Buckets, Limits
from tests.servers.messages_api import MessagesServer

MODEL = "claude-haiku-5-5"
BODY: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Well?"}]}


@dataclass
class Clock:
    at_s: float = 0.0

    def __call__(self) -> float:
        return self.at_s


def admitted(buckets: Buckets, *, input_tokens: int = 0, model: str = MODEL) -> bool:
    return buckets.admit(model, input_tokens=input_tokens) is None


def wait_s(refusal: Fault | None) -> str:
    assert refusal is not None
    assert refusal.status == 429
    return refusal.headers["retry-after"]


def test_a_bucket_refills_continuously() -> None:
    clock = Clock()
    buckets = Buckets(Limits(requests=60, burst_s=2), clock=clock)
    assert [admitted(buckets) for _ in range(3)] == [True, True, False]
    clock.at_s = 0.5
    assert not admitted(buckets)
    clock.at_s = 1.0
    assert admitted(buckets)
    clock.at_s = 1_000.0
    assert [admitted(buckets) for _ in range(3)] == [True, True, False]


def test_a_refused_request_takes_nothing_and_says_when_to_come_back() -> None:
    buckets = Buckets(Limits(requests=600, input_tokens=6_000, burst_s=1), clock=Clock())
    assert admitted(buckets, input_tokens=100)
    refusals = [buckets.admit(MODEL, input_tokens=90) for _ in range(20)]
    assert {wait_s(refusal) for refusal in refusals} == {"1"}
    assert buckets.headers(MODEL)["anthropic-ratelimit-requests-remaining"] == "9"


def test_output_is_taken_as_it_is_produced() -> None:
    clock = Clock()
    buckets = Buckets(Limits(output_tokens=6_000, burst_s=1), clock=clock)
    buckets.produced(MODEL, 300)
    assert wait_s(buckets.admit(MODEL, input_tokens=1)) == "3"
    clock.at_s = 2.1
    assert admitted(buckets)


def test_every_model_has_buckets_of_its_own() -> None:
    buckets = Buckets(Limits(requests=1, burst_s=60), clock=Clock())
    assert [admitted(buckets), admitted(buckets), admitted(buckets, model="claude-opus-5-5")] == [True, False, True]


def test_headers_tell_limits_and_what_is_left() -> None:
    buckets = Buckets(Limits(requests=100, input_tokens=100_000, output_tokens=50_000), clock=Clock())
    assert admitted(buckets, input_tokens=1_400)
    buckets.produced(MODEL, 20_000)
    told = buckets.headers(MODEL)
    assert told["anthropic-ratelimit-requests-limit"] == "100"
    assert told["anthropic-ratelimit-requests-remaining"] == "99"
    assert told["anthropic-ratelimit-input-tokens-remaining"] == "99000"
    assert told["anthropic-ratelimit-output-tokens-remaining"] == "30000"
    # the tighter one
    assert told["anthropic-ratelimit-tokens-limit"] == "50000"
    assert told["anthropic-ratelimit-tokens-reset"].endswith("Z")


@pytest.mark.parametrize("limits", [Limits(requests=2), Limits(input_tokens=5), Limits(output_tokens=10)])
def test_the_server_enforces_them(limits: Limits) -> None:
    with MessagesServer(limits=limits) as server, httpx.Client(headers={"authorization": "Bearer sk"}) as client:
        replies = [client.post(f"{server.url}/v1/messages", json=BODY) for _ in range(10)]
        assert replies[0].status_code == 200
        assert replies[-1].status_code == 429
        assert int(replies[-1].headers["retry-after"]) >= 1
        assert replies[-1].json()["error"]["type"] == "rate_limit_error"
        assert server.stats()["served"]["limit_reached"] == sum(reply.status_code == 429 for reply in replies)


def test_what_is_read_from_the_cache_does_not_count() -> None:
    marked = {"type": "text", "text": "rules " * 500, "cache_control": {"type": "ephemeral"}}
    with MessagesServer(limits=Limits(input_tokens=2_000)) as server:
        replies = [
            httpx.post(
                f"{server.url}/v1/messages", json=BODY | {"system": [marked]}, headers={"authorization": "Bearer k"}
            )
            for _ in range(5)
        ]
    assert [reply.status_code for reply in replies] == [200] * 5
