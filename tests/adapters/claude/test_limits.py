from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.adapters.claude.limits import read_limits
from qa_worker.application.judging import RateLimits


def headers(**meters: tuple[str, str]) -> httpx2.Headers:
    """Headers of meters given as (limit, remaining)."""
    told: dict[str, str] = {}
    for name, (limit, left) in meters.items():
        prefix = f"Anthropic-RateLimit-{name.replace('_', '-')}"
        told |= {f"{prefix}-Limit": limit, f"{prefix}-Remaining": left, f"{prefix}-Reset": "2026-11-23T00:00:00Z"}
    return httpx2.Headers(told)


def test_each_meter_is_read() -> None:
    told = headers(requests=("1000", "998"), input_tokens=("2000000", "1990000"), output_tokens=("400000", "0"))
    assert read_limits(told) == RateLimits(1_000, 998, 2_000_000, 1_990_000, 400_000, 0)


def test_the_meter_of_its_own_is_preferred_to_the_tightest() -> None:
    told = headers(tokens=("400000", "3000"), input_tokens=("2000000", "1990000"))
    assert read_limits(told) == RateLimits(input_tokens=2_000_000, input_tokens_left=1_990_000)


def test_the_tightest_meter_stands_for_the_input_where_that_has_none() -> None:
    assert read_limits(headers(tokens=("50000", "49000"))) == RateLimits(input_tokens=50_000, input_tokens_left=49_000)


@pytest.mark.parametrize("value", ["", "many", "-5", "1.5", "1e9", "\u0661\u0662", "9" * 30])
def test_a_value_that_is_no_number_tells_nothing(value: str) -> None:
    assert read_limits({"anthropic-ratelimit-requests-limit": value}) is None


def test_no_headers_tell_nothing() -> None:
    assert read_limits({"content-type": "text/html"}) is None


@given(st.dictionaries(st.sampled_from(sorted(headers(requests=("", ""), tokens=("", "")))), st.text()))
def test_no_header_is_ever_an_error(told: dict[str, str]) -> None:
    limits = read_limits(told)
    assert limits is None or (limits.requests or 0) >= 0
