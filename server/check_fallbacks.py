"""Explains the fallbacks of a config to people, and finds those that are probably not intended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from server.config import Config
from server.keyring import Keyring, Principal
from server.protocol.causes import Cause
from server.protocol.fallback_lists import changes_fields
from server.protocol.fallbacks import EVERY, Fallbacks, Table
from server.upstream.deployments import Deployments
from server.upstream.ways import Ways

_NAMES = {
    Cause.OTHER: "fallbacks",
    Cause.WINDOW: "context_window_fallbacks",
    Cause.POLICY: "content_policy_fallbacks",
}


def ways_of(config: Config) -> Ways:
    """The ways of all requests by this config."""
    return Ways(config, Deployments(config), Keyring(config))


def fallbacks_of(ways: Ways, model: str) -> Iterator[str]:
    """What comes after a model, one line for each list that differs."""
    listed = {cause: [one for one in ways.fallbacks.after(model, cause) if one != model] for cause in _NAMES}
    general = listed[Cause.OTHER]
    for cause, name in _NAMES.items():
        targets = listed[cause]
        if targets if cause is Cause.OTHER else targets != general:
            yield f"  {name}: {', '.join(targets) or 'none'}"


def surprising_fallbacks(config: Config) -> Iterator[str]:
    """Fallbacks that lead nowhere, in a circle, or to where a key may not go."""
    ways = ways_of(config)
    for name, table in _tables(ways.fallbacks).items():
        yield from _unknown(ways, name, table)
        for circle in _circles(table):
            yield f"{name} lead in a circle: {' -> '.join(circle)}; no request asks a model twice"
    for section in (config.router_settings, config.litellm_settings):
        for name in (*_NAMES.values(), "default_fallbacks"):
            if changes_fields(getattr(section, name)):
                yield f"{name} change fields of the request, which has no effect: only the model counts"
    if config.general_settings.enforce_fallback_model_access:
        for key in config.pollux.keys:
            yield from _forbidden(ways, Principal(key.name, None if key.models is None else frozenset(key.models)))


def _tables(fallbacks: Fallbacks) -> dict[str, Table]:
    tables = {Cause.OTHER: fallbacks.general, Cause.WINDOW: fallbacks.window, Cause.POLICY: fallbacks.policy}
    return {_NAMES[cause]: table for cause, table in tables.items() if table}


def _unknown(ways: Ways, name: str, table: Table) -> Iterator[str]:
    for model, targets in table.items():
        known = ways.serving(model) or (name == "fallbacks" and ways.serving(ways.fallbacks.alike(model) or ""))
        if not known and (model != EVERY or name != "fallbacks"):
            yield f"{name} has a list for {model}, which no deployment serves"
        for target in targets:
            if not ways.serving(target):
                yield f"{name} of {model} lists {target}, which no deployment serves"


def _circles(table: Mapping[str, tuple[str, ...]]) -> Iterator[list[str]]:
    """The circles in which the lists lead, each once. A list for all models leads from none in particular."""
    seen: set[frozenset[str]] = set()

    def walked(way: list[str]) -> Iterator[list[str]]:
        for target in table.get(way[-1], ()):
            if target in way:
                circle = way[way.index(target) :]
                if frozenset(circle) not in seen:
                    seen.add(frozenset(circle))
                    yield [*circle, target]
            elif target not in done:
                yield from walked([*way, target])
        done.add(way[-1])

    done: set[str] = set()
    for model in table:
        if model not in done and model != EVERY:
            yield from walked([model])


def _forbidden(ways: Ways, principal: Principal) -> Iterator[str]:
    """The fallbacks of a key's models that the key may not use, in one line."""
    reached = {name for model in principal.models or () for name in ways.fallbacks.reachable(model)}
    out = sorted(name for name in reached if ways.serving(name) and not ways.may_use(principal, name))
    if out:
        yield (
            f"requests with the key of {principal.name} never fall back to {', '.join(out)}: add that to its models, "
            "or set general_settings.enforce_fallback_model_access to false"
        )
