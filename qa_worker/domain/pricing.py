"""What a request cost, from its usage and the price list."""

from __future__ import annotations

from datetime import date

from qa_worker.domain.evaluation import Usage
from qa_worker.domain.prices import PRICES, Band

_PER_MICRO_USD = 1_000
"""USD per 1e9 tokens times tokens gives nano-dollars; a thousand of them are one micro-dollar."""


def cost_micro_usd(usage: Usage, *, model: str, at: date, batch: bool = False) -> int | None:
    """The cost of one request in micro-dollars, rounded half up; None where no price is known (which is not free).

    `at` is the UTC day of the request. `batch` halves every category of tokens (the Message Batches API). Usage must
    be of one request: the length of the prompt chooses the band of prices.
    """
    band = _band(model, prompt_tokens=usage.prompt_tokens, at=at)
    if band is None:
        return None
    nano_usd = (
        usage.input_tokens * band.input
        + usage.output_tokens * band.output
        + usage.cache_read_tokens * band.cache_read
        + usage.cache_write_5m_tokens * band.cache_write_5m
        + usage.cache_write_1h_tokens * band.cache_write_1h
    )
    divisor = _PER_MICRO_USD * (2 if batch else 1)
    return (nano_usd + divisor // 2) // divisor


def _band(model: str, *, prompt_tokens: int, at: date) -> Band | None:
    for period in PRICES.get(model, ()):
        if period.since is None or period.since <= at:
            fits = (b for b in period.bands if b.max_prompt_tokens is None or prompt_tokens <= b.max_prompt_tokens)
            return next(fits, None)
    return None
