"""What `qa-worker status` shows of what holds work back, as tables and as JSON."""

from __future__ import annotations

import asyncio

import pytest

from qa_worker.adapters.redis.limiter import RedisLimiter
from qa_worker.application.judging import RateLimits
from qa_worker.application.limits import BucketStatus, GateStatus, Spending
from qa_worker.bootstrap.gateway import GatewayStatus, gateway_status
from qa_worker.cli.stack_facts import gateway_as_dict, show_budgets, show_gateway, show_waiting
from qa_worker.settings import Settings


def _lines(out: str) -> list[list[str]]:
    """The words of each line, without what draws tables."""
    return [" ".join(line.replace("│", " ").replace("┃", " ").split()).split() for line in out.splitlines()]


def test_each_kind_of_waiting_work_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    show_waiting({"evaluations": {"breaker_open": 1200}, "runs": {"http_429": 2}, "batches": {"the provider": 1}})

    lines = _lines(capsys.readouterr().out)
    assert ["evaluations", "1,200", "breaker_open"] in lines
    assert ["runs", "2", "http_429"] in lines
    assert ["batches", "1", "the", "provider"] in lines


def test_where_nothing_waits_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_waiting({})

    assert capsys.readouterr().out == ""


def test_the_breaker_and_the_limits_of_every_model_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    buckets = {
        "claude-judge": (BucketStatus("requests", 4000, 660, "learnt"),),
        "claude-caller": (BucketStatus("requests", 1000, 165, "assumed"),),
    }
    status = GatewayStatus(GateStatus("open", 42.0, 5, 0.0, shared=True), buckets)
    show_gateway(status)

    out = capsys.readouterr().out
    assert "Claude's breaker: open for 42 s more, 0% of the rate" in out
    assert ["claude-judge", "requests", "4,000", "660", "learnt"] in _lines(out)
    assert ["claude-caller", "requests", "1,000", "165", "assumed"] in _lines(out)
    assert [(one["model"], one["left"]) for one in gateway_as_dict(status)["buckets"]] == [
        ("claude-judge", 660),
        ("claude-caller", 165),
    ]


def test_a_breaker_that_each_process_has_for_itself_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_gateway(GatewayStatus(GateStatus("closed", 0.0, 0, 1.0, shared=False), {}))

    assert "Redis is away" in capsys.readouterr().out


def test_budgets_are_shown_of_all_and_of_whoever_has_a_cap(capsys: pytest.CaptureFixture[str]) -> None:
    show_budgets([Spending("", 1_500_000, None), Spending("a", 500_000, 2_000_000), Spending("b", 1_000_000, None)])

    lines = _lines(capsys.readouterr().out)
    assert ["all", "$1.5000", "none"] in lines
    assert ["a", "$0.5000", "$2.0000"] in lines
    assert not any("b" in line for line in lines)


@pytest.mark.services
def test_each_model_has_its_own_limits(broker_url: str) -> None:
    async def learnt() -> None:
        limiter = RedisLimiter(broker_url, caps={})
        await limiter.learn("claude-caller", RateLimits(requests=60))
        await limiter.close()

    asyncio.run(learnt())

    status = gateway_status(Settings(), broker_url, ["claude-caller", "claude-judge"])

    found = {model: (meters[0].limit, meters[0].source) for model, meters in status.buckets.items()}
    assert found == {"claude-caller": (60.0, "learnt"), "claude-judge": (1000.0, "assumed")}
    assert status.breaker.shared


def test_without_redis_the_limits_are_those_of_one_process() -> None:
    chosen = Settings.model_validate({"QA_WORKER_PROCESSES": 10})

    status = gateway_status(chosen, "redis://127.0.0.1:1/0", ["claude-judge"])

    assert [(meter.limit, meter.source) for meter in status.buckets["claude-judge"]][:1] == [(100.0, "local")]
    assert not status.breaker.shared
