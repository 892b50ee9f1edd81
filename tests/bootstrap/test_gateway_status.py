"""What people are told of the gateway, asked from outside the workers."""

from __future__ import annotations

import asyncio

import pytest

from qa_worker.adapters.redis.limiter import RedisLimiter
from qa_worker.application.limits import Brakes, GateStatus, Need, Permit
from qa_worker.bootstrap.gateway import GatewayStatus, gateway_status
from qa_worker.cli.stack_facts import show_gateway
from qa_worker.settings import Settings

pytestmark = pytest.mark.services
MODEL = "claude-haiku-5-5"


def _reach_the_spend_limit(url: str) -> None:
    async def reach() -> None:
        limiter = RedisLimiter(url, caps={})
        permit = await limiter.reserve(MODEL, Need(1000, 200))
        assert isinstance(permit, Permit)
        await limiter.cap(permit, 300)
        await limiter.close()

    asyncio.run(reach())


def test_the_spend_limit_is_told_from_outside_the_workers(broker_url: str) -> None:
    before = gateway_status(Settings(), broker_url, [MODEL])
    _reach_the_spend_limit(broker_url)
    after = gateway_status(Settings(), broker_url, [MODEL])

    assert before.brakes[MODEL] == Brakes()
    assert after.brakes[MODEL].capped_for_s


@pytest.mark.parametrize(
    ("brakes", "shown"),
    [
        (Brakes(load=0.5), "overloaded: 50% of the rate"),
        (Brakes(capped_for_s=212.3), "the spend limit of the Claude account is reached (asked again in 212 s)"),
        (Brakes(capped_for_s=0.0), "is reached (asked again with the next call)"),
    ],
)
def test_what_holds_a_model_back_is_shown(brakes: Brakes, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_gateway(GatewayStatus(GateStatus("closed", 0.0, 0, 1.0, shared=True), {}, {MODEL: brakes}))

    assert shown in " ".join(capsys.readouterr().out.split())


def test_a_model_that_nothing_holds_back_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    show_gateway(GatewayStatus(GateStatus("closed", 0.0, 0, 1.0, shared=True), {}, {MODEL: Brakes()}))

    assert MODEL not in capsys.readouterr().out
