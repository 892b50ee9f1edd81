"""The provider's rate limits, as the headers of every answer tell them."""

from __future__ import annotations

from collections.abc import Mapping

from qa_worker.application.judging import RateLimits

_MAX_DIGITS = 15


def read_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Limits and what is left of them; None where no header tells any. Names in `headers` are in lower case, or their
    mapping doesn't tell cases apart.
    """
    requests, requests_left = _meter(headers, "requests")
    input_tokens, input_left = _meter(headers, "input-tokens")
    if input_tokens is None:
        # the plain meter is the tightest one in force: taken for the input, it can only slow us down
        input_tokens, input_left = _meter(headers, "tokens")
    output_tokens, output_left = _meter(headers, "output-tokens")
    told = RateLimits(
        requests=requests,
        requests_left=requests_left,
        input_tokens=input_tokens,
        input_tokens_left=input_left,
        output_tokens=output_tokens,
        output_tokens_left=output_left,
    )
    return None if told == RateLimits() else told


def _meter(headers: Mapping[str, str], name: str) -> tuple[int | None, int | None]:
    prefix = f"anthropic-ratelimit-{name}"
    return _number(headers.get(f"{prefix}-limit")), _number(headers.get(f"{prefix}-remaining"))


def _number(value: str | None) -> int | None:
    """A number of plain digits; None for whatever else a proxy may have made of it."""
    text = (value or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
