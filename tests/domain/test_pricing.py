from __future__ import annotations

from datetime import date

import pytest

from qa_worker.domain.evaluation import Usage
from qa_worker.domain.prices import AS_OF, PRICES
from qa_worker.domain.pricing import cost_micro_usd

TODAY = date(2026, 11, 23)
TYPICAL = Usage(input_tokens=3_000, cache_read_tokens=2_000, output_tokens=400, thinking_tokens=100)


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        # 3000 x 0.10 + 2000 x 0.01 + 400 x 0.50 micro-dollars
        ("claude-haiku-5-5", TYPICAL, 300 + 20 + 200),
        # 3000 x 2 + 2000 x 0.10 + 400 x 10
        ("claude-sonnet-5-5", TYPICAL, 6_000 + 200 + 4_000),
        # 3000 x 4 + 2000 x 0.20 + 400 x 20
        ("claude-opus-5-5", TYPICAL, 12_000 + 400 + 8_000),
        # 3000 x 8 + 2000 x 0.20 + 400 x 40
        ("claude-fable-5-2", TYPICAL, 24_000 + 400 + 16_000),
        # 3000 x 10 + 2000 x 0.25 + 400 x 50
        ("claude-fable-5-1", TYPICAL, 30_000 + 500 + 20_000),
        # 3000 x 5 + 2000 x 0.5 + 400 x 25
        ("claude-opus-5", TYPICAL, 15_000 + 1_000 + 10_000),
        ("claude-opus-4-8", TYPICAL, 15_000 + 1_000 + 10_000),
        # 3000 x 2 + 2000 x 0.2 + 400 x 10
        ("claude-sonnet-5", TYPICAL, 6_000 + 400 + 4_000),
        # 3000 x 3 + 2000 x 0.3 + 400 x 15
        ("claude-sonnet-4-6", TYPICAL, 9_000 + 600 + 6_000),
        # 3000 x 1 + 2000 x 0.1 + 400 x 5
        ("claude-haiku-4-5", TYPICAL, 3_000 + 200 + 2_000),
        # the first call of a rubric writes: 1000 x 0.10 + 2000 x 0.125 + 100 x 0.50
        (
            "claude-haiku-5-5",
            Usage(input_tokens=1_000, cache_write_5m_tokens=2_000, output_tokens=100),
            100 + 250 + 50,
        ),
        # 2000 x 4 (one hour) + 10 x 2
        ("claude-sonnet-5-5", Usage(input_tokens=10, cache_write_1h_tokens=2_000), 8_000 + 20),
        ("claude-haiku-5-5", Usage(), 0),
    ],
)
def test_the_cost_of_a_request_adds_every_kind_of_token(model: str, usage: Usage, expected: int) -> None:
    assert cost_micro_usd(usage, model=model, at=TODAY) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # 100,000 in all: 60000 x 0.10 + 40000 x 0.01 + 1000 x 0.50
        (Usage(input_tokens=60_000, cache_read_tokens=40_000, output_tokens=1_000), 6_000 + 400 + 500),
        # one more, cached or not, and every token takes the upper price: 60000 x 0.50 + 40001 x 0.05 + 1000 x 2.50
        (Usage(input_tokens=60_000, cache_read_tokens=40_001, output_tokens=1_000), 30_000 + 2_000 + 2_500),
        # 90000 x 0.50 + 10001 x 0.625 = 45000 + 6250.625
        (Usage(input_tokens=90_000, cache_write_5m_tokens=10_001), 51_251),
        # output does not count for the band: 100000 x 0.10 + 50000 x 0.50
        (Usage(input_tokens=100_000, output_tokens=50_000), 10_000 + 25_000),
    ],
)
def test_haiku_prices_the_whole_request_by_the_length_of_its_prompt(usage: Usage, expected: int) -> None:
    assert cost_micro_usd(usage, model="claude-haiku-5-5", at=TODAY) == expected


def test_the_other_models_have_one_price_at_any_length() -> None:
    long = Usage(input_tokens=900_000)
    assert cost_micro_usd(long, model="claude-sonnet-5-5", at=TODAY) == 1_800_000


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 9, 27), None),
        (date(2026, 9, 28), 200),
        (date(2026, 10, 6), 200),
        (date(2026, 10, 7), 100),
        (TODAY, 100),
    ],
)
def test_a_request_is_priced_by_the_prices_of_its_day(day: date, expected: int | None) -> None:
    assert cost_micro_usd(Usage(cache_read_tokens=1_000), model="claude-sonnet-5-5", at=day) == expected


def test_a_batch_costs_half_in_every_category() -> None:
    usage = Usage(input_tokens=1_000, cache_read_tokens=1_000, cache_write_1h_tokens=1_000, output_tokens=1_000)
    # (100 + 10 + 200 + 500) / 2
    assert cost_micro_usd(usage, model="claude-haiku-5-5", at=TODAY, batch=True) == 405


@pytest.mark.parametrize(
    ("tokens", "batch", "expected"),
    [
        (4, False, 0),  # 0.4
        (5, False, 1),  # 0.5
        (14, False, 1),  # 1.4
        (15, False, 2),  # 1.5, where rounding to even would also give 2
        (25, False, 3),  # 2.5, where rounding to even would give 2
        (9, True, 0),  # 0.45
        (10, True, 1),  # 0.5
    ],
)
def test_costs_are_rounded_half_up_once_for_the_whole_request(tokens: int, *, batch: bool, expected: int) -> None:
    usage = Usage(input_tokens=tokens)
    assert cost_micro_usd(usage, model="claude-haiku-5-5", at=TODAY, batch=batch) == expected


def test_the_cost_of_an_unknown_model_is_unknown_and_not_zero() -> None:
    assert cost_micro_usd(TYPICAL, model="claude-haiku-9", at=TODAY) is None
    assert cost_micro_usd(Usage(), model="", at=TODAY) is None


def test_every_list_of_periods_is_newest_first_and_ends_in_an_open_band() -> None:
    for model, periods in PRICES.items():
        starts = [period.since or date.min for period in periods]
        assert starts == sorted(starts, reverse=True), model
        for period in periods:
            limits = [band.max_prompt_tokens for band in period.bands]
            assert limits[-1] is None, model
            assert limits[:-1] == sorted(limit for limit in limits[:-1] if limit is not None), model
            assert period.since is None or period.since <= AS_OF, model
