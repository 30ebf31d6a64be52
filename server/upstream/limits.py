"""What a config says of the time, the share and the price of a deployment, in LiteLLM's order of precedence."""

from __future__ import annotations

from typing import Any

from server.config import Config
from server.config.sections import LiteLLMParams, ModelEntry


def timeout_s(params: LiteLLMParams, config: Config) -> float | None:
    """The limit of an answer that is not streamed."""
    own = params.timeout or _number(getattr(params, "request_timeout", None))
    return own or config.litellm_settings.request_timeout or config.router_settings.timeout


def stream_timeout_s(params: LiteLLMParams, config: Config) -> float | None:
    """The limit until a streamed answer begins: what is said of streams, else what is said of all answers.

    Of two that concern all deployments ours goes before LiteLLM's, because it speaks of streams.
    """
    said = params.stream_timeout or config.router_settings.stream_timeout or params.timeout
    if said or "first_byte_timeout_s" in config.pollux.model_fields_set:
        return said
    return timeout_s(params, config)


def limit(entry: ModelEntry, name: str) -> float | None:
    """A limit of the minute, `rpm` or `tpm`, which may stand in three places."""
    for holder in (entry.litellm_params, entry, entry.model_info):
        if (given := _number(getattr(holder, name, None))) is not None:
            return given
    return None


def cooldown_s(entry: ModelEntry) -> float | None:
    """How long the deployment cools down, where it says so itself."""
    about = _number(getattr(entry.model_info, "cooldown_time", None))
    return entry.litellm_params.cooldown_time if about is None else about


def cost(entry: ModelEntry) -> float | None:
    """The prices of a token of input and one of output, together."""
    prices = [_number(getattr(entry.litellm_params, f"{side}_cost_per_token", None)) for side in ("input", "output")]
    stated = [price for price in prices if price is not None]
    return sum(stated) if stated else None


def _number(value: Any) -> float | None:
    try:
        return float(value) if value is not None else None
    except (TypeError, ValueError):
        return None
