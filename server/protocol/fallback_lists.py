"""Lists of fallbacks as LiteLLM has them, in its config and in the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from server.errors import InvalidType, InvalidValue
from server.protocol.fallbacks import EVERY, Fallbacks, Table

MOST_OF_A_REQUEST = 32
"""How many models a request may name for itself."""


def targets_in(given: Any) -> tuple[str, ...]:
    """The models in a list of names, or of mappings with a `model`.

    Raises:
        ValueError: it is another thing

    """
    if not isinstance(given, list):
        raise ValueError(f"expected a list of models, such as [{given}]")  # noqa: TRY004 - pydantic takes this one
    names = []
    for one in given:
        name = one.get("model") if isinstance(one, dict) else one
        if not isinstance(name, str) or not name:
            raise ValueError("each model must be a name, or a mapping with a model")
        names.append(name)
    return tuple(names)


def table_in(given: Any) -> Table:
    """The table in LiteLLM's form: a list of mappings, each of one model to the list of those that follow it.

    Of two lists for one model the first one counts; for `*` the last one, as in LiteLLM.

    Raises:
        ValueError: it is another thing

    """
    if not isinstance(given, list):
        raise ValueError("expected a list, such as [{model: [next, another]}]")  # noqa: TRY004 - as above
    table: dict[str, tuple[str, ...]] = {}
    for entry in given:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise ValueError("each entry must be a mapping with exactly one key, such as {model: [next, another]}")
        ((name, targets),) = entry.items()
        try:
            listed = targets_in(targets)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if name == EVERY or str(name) not in table:
            table[str(name)] = listed
    return table


def changes_fields(given: Any) -> bool:
    """Whether a target in this list, or table, also says what the request is to be changed to, as LiteLLM allows."""
    if isinstance(given, dict):
        return ("model" in given and len(given) > 1) or any(map(changes_fields, given.values()))
    return isinstance(given, list) and any(map(changes_fields, given))


class Wished(NamedTuple):
    """What the body of a request says of its fallbacks; None: it does not say it."""

    none: bool = False
    """Whether it wants none."""
    own: tuple[str, ...] | None = None
    general: Table | None = None
    window: Table | None = None
    policy: Table | None = None

    @property
    def models(self) -> list[str]:
        """All models that it names."""
        tables = [table for table in (self.general, self.window, self.policy) if table]
        return list(
            dict.fromkeys(
                [*(self.own or ()), *(name for table in tables for listed in table.values() for name in listed)]
            )
        )

    def put_over(self, configured: Fallbacks) -> Fallbacks:
        """The fallbacks that hold for the request: its own lists replace those of the config."""
        if self.none:
            return Fallbacks()
        said = {name: value for name, value in self._asdict().items() if value is not None and name != "none"}
        return replace(configured, **said) if said else configured


def wished_in(body: Mapping[str, Any]) -> Wished:
    """What the body of a request says of its fallbacks.

    Raises:
        InvalidType, InvalidValue

    """
    if _FIELDS.keys().isdisjoint(body):  # the fast path
        return Wished(none=body.get("disable_fallbacks") is True)
    said: dict[str, Any] = {}
    for param, name in _FIELDS.items():
        if (given := body.get(param)) is not None:
            said |= _read(param, name, given)
    wished = Wished(none=body.get("disable_fallbacks") is True, **said)
    if len(wished.models) > MOST_OF_A_REQUEST:
        text = f"Invalid value for 'fallbacks': a request may name {MOST_OF_A_REQUEST} models."
        raise InvalidValue(text, param="fallbacks")
    return wished


_FIELDS = {"fallbacks": "general", "context_window_fallbacks": "window", "content_policy_fallbacks": "policy"}


def _read(param: str, name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, list):
        raise InvalidType(param, "an array", given)
    if changes_fields(given):
        raise InvalidValue(f"Invalid value for '{param}': it can name models, but change no fields.", param=param)
    try:
        return {"own": targets_in(given)} if param == "fallbacks" and _is_plain(given) else {name: table_in(given)}
    except ValueError as error:
        raise InvalidValue(f"Invalid value for '{param}': {error}.", param=param) from error


def _is_plain(given: list[Any]) -> bool:
    """Whether this lists models rather than lists of them. An empty one is a table without entries."""
    return bool(given) and not all(isinstance(one, dict) and not isinstance(one.get("model"), str) for one in given)
