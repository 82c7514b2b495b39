"""What a call costs, purely: the upper bound to reserve before a send and the price of the usage after it."""

from __future__ import annotations

from medkd.config import Prices
from medkd.teacher.protocols import Usage

_MILLION = 1_000_000


def cost_usd(prices: Prices, usage: Usage, hour_utc: int) -> float:
    """US dollars of a call that ended in the hour `hour_utc` (0-23)."""
    fresh = max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens)
    dollars = (
        fresh * prices.input
        + usage.cached_tokens * _or_input(prices, prices.cached_input)
        + usage.cache_write_tokens * _or_input(prices, prices.cache_write)
        + usage.completion_tokens * prices.output
    )
    return dollars * _multiplier(prices, hour_utc) / _MILLION


def upper_bound_usd(prices: Prices, prompt_bytes: int, reply_limit: int, hour_utc: int) -> float:
    """US dollars that a call sent in the hour `hour_utc` cannot exceed: no tokenizer makes more tokens than there are bytes.

    A call may end in the next hour, so the dearer of both hours counts.
    """
    dearest = max(prices.input, _or_input(prices, prices.cached_input), _or_input(prices, prices.cache_write))
    multiplier = max(_multiplier(prices, hour_utc), _multiplier(prices, (hour_utc + 1) % 24))
    return (prompt_bytes * dearest + reply_limit * prices.output) * multiplier / _MILLION


def _or_input(prices: Prices, price: float | None) -> float:
    return prices.input if price is None else price


def _multiplier(prices: Prices, hour_utc: int) -> float:
    return prices.peak_multiplier if hour_utc in prices.peak_hours_utc else 1.0
