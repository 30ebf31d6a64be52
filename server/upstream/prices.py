"""What a deployment's tokens cost: by the price list of the config, else by the costs that LiteLLM's keys give."""

from __future__ import annotations

from collections.abc import Mapping

from server.config.ours import ModelPrice
from server.config.sections import ModelEntry, TokenCosts
from server.protocol.tokens import Price

_OF_A_MILLION = 1e9 / 1e6
_OF_ONE = 1e9
"""What turns prices of a million tokens, and of one, into billionths for one."""


def price_of(entry: ModelEntry, listed: Mapping[str, ModelPrice]) -> Price | None:
    """The price of a deployment; None if the config has none."""
    if ours := listed.get(entry.model_name):
        return _price(ours.input, ours.cached_input, ours.output, _OF_A_MILLION)
    return _litellms(entry.litellm_params) or _litellms(entry.model_info)


def _litellms(costs: TokenCosts) -> Price | None:
    given, made = costs.input_cost_per_token, costs.output_cost_per_token
    if given is None and made is None:
        return None
    return _price(given or 0.0, costs.cache_read_input_token_cost, made or 0.0, _OF_ONE)


def _price(given: float, cached: float | None, made: float, scale: float) -> Price:
    return Price(given * scale, (given if cached is None else cached) * scale, made * scale)
