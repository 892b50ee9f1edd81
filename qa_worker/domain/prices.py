"""The price list of the models, as data.

Figures are whole USD per 1,000,000,000 tokens, a thousand times the published price per million, so that every price
is an integer: $0.125 per million is written 125. Source: https://platform.claude.com/docs/en/about-claude/pricing, as
of 2026-11-22; dates from the release notes. Change a price by adding a period, never by editing one: stored costs were
computed with it. Of claude-fable-5-2, cache reads and 5-minute writes come from a reseller's page and 1-hour writes are
derived (twice the input price).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

AS_OF = date(2026, 11, 22)


@dataclass(frozen=True, slots=True)
class Band:
    """Prices for prompts of up to `max_prompt_tokens` (None: of any length), in USD per 1,000,000,000 tokens.

    The whole prompt, cached or not, chooses the band, and the band prices every token of the request.
    """

    input: int
    output: int
    cache_write_5m: int
    cache_write_1h: int
    cache_read: int
    max_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """The bands of a model from `since` (the UTC day; None: from its first day, which is not recorded) onwards."""

    since: date | None
    bands: tuple[Band, ...]


# Each model's periods, newest first.               input  output  write 5m  write 1h    read
PRICES: Mapping[str, tuple[Period, ...]] = {
    "claude-haiku-5-5": (
        Period(
            date(2026, 10, 7),
            (
                Band(100, 500, 125, 200, 10, max_prompt_tokens=100_000),
                Band(500, 2_500, 625, 1_000, 50),
            ),
        ),
    ),
    "claude-sonnet-5-5": (
        Period(date(2026, 10, 7), (Band(2_000, 10_000, 2_500, 4_000, 100),)),
        Period(date(2026, 9, 28), (Band(2_000, 10_000, 2_500, 4_000, 200),)),
    ),
    "claude-opus-5-5": (Period(date(2026, 9, 22), (Band(4_000, 20_000, 5_000, 8_000, 200),)),),
    "claude-fable-5-2": (Period(date(2026, 11, 9), (Band(8_000, 40_000, 10_000, 16_000, 200),)),),
    "claude-fable-5-1": (Period(date(2026, 9, 1), (Band(10_000, 50_000, 12_500, 20_000, 250),)),),
    "claude-opus-5": (Period(date(2026, 7, 24), (Band(5_000, 25_000, 6_250, 10_000, 500),)),),
    "claude-opus-4-8": (Period(None, (Band(5_000, 25_000, 6_250, 10_000, 500),)),),
    "claude-sonnet-5": (Period(date(2026, 6, 30), (Band(2_000, 10_000, 2_500, 4_000, 200),)),),
    "claude-sonnet-4-6": (Period(None, (Band(3_000, 15_000, 3_750, 6_000, 300),)),),
    "claude-haiku-4-5": (Period(None, (Band(1_000, 5_000, 1_250, 2_000, 100),)),),
}
