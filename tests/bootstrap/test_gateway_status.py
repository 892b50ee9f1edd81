"""What people are told of the gateway, asked from outside the workers."""

from __future__ import annotations

import asyncio

import pytest

from qa_worker.adapters.redis.limiter import RedisLimiter
from qa_worker.application.limits import Need, Permit
from qa_worker.bootstrap.gateway import gateway_status
from qa_worker.cli.stack import _show_gateway
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


def test_the_spend_limit_is_shown_where_it_is_reached(broker_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = gateway_status(Settings(), broker_url, MODEL)
    _reach_the_spend_limit(broker_url)
    after = gateway_status(Settings(), broker_url, MODEL)
    _show_gateway(before)
    shown_before = capsys.readouterr().out
    _show_gateway(after)

    assert before.brakes.capped_for_s is None
    assert after.brakes.capped_for_s
    assert "spend limit" not in shown_before
    assert "The spend limit of the Claude account is reached" in capsys.readouterr().out
