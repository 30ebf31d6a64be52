"""Decides in which of the three modes a request is served, by exactly LiteLLM's rules, and gives the reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class Mode(StrEnum):
    PROXIED = "proxied"
    """Forwarded at once, as JSON or as a stream."""
    NATIVE = "native"
    """The provider runs it in its own background; everything about it is forwarded."""
    CACHED = "cached"
    """Pollux runs it by streaming from the provider, and keeps every event in the store."""


@dataclass(frozen=True, slots=True)
class BackgroundMode:
    """`litellm_settings.responses.background_mode`, as written in the config."""

    polling_via_cache: Any = False
    """`"all"`, a list of providers, or anything else for off."""
    native_background_mode: Collection[str] = ()


class Decision(NamedTuple):
    mode: Mode
    why: str


def decide(
    model: str,
    *,
    background: bool,
    settings: BackgroundMode,
    providers_of: Callable[[str], Iterable[str | None]],
) -> Decision:
    """How a request for this model is served.

    `providers_of(model)` names the provider of each deployment with exactly that `model_name`; aliases and
    wildcards don't count.
    """
    if not background:
        return Decision(Mode.PROXIED, "background is not true")
    if model in settings.native_background_mode:
        return Decision(Mode.NATIVE, "listed in native_background_mode")
    polling = settings.polling_via_cache
    if polling == "all":
        return Decision(Mode.CACHED, "polling_via_cache is all")
    if not isinstance(polling, list):
        return Decision(Mode.NATIVE, "polling_via_cache is off")
    if "/" in model:
        providers: list[str | None] = [model.split("/", 1)[0]]
    else:
        providers = list(providers_of(model))
    for provider in providers:
        if provider in polling:
            return Decision(Mode.CACHED, f"polling_via_cache lists {provider}")
    names = ", ".join(sorted(provider or "none" for provider in providers)) or "none"
    return Decision(Mode.NATIVE, f"polling_via_cache does not list its provider ({names})")
