"""The configuration: an unchanged LiteLLM config file, and our own section `pollux:`. It is read at the
start, and again for each reload.

LiteLLM's other keys are accepted and listed in one warning; a mistake in ours is an error that names its dotted
path. `os.environ/NAME` may stand for any string.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError

from server.config.credentials import with_credential
from server.config.includes import Merged, read_merged
from server.config.ours import GUEST, Key, ModelPrice, Ours, Pollux, Tls
from server.config.sections import (
    ConfigError,
    Credential,
    Foreign,
    GeneralSettings,
    LiteLLMSettings,
    ModelEntry,
    RouterSettings,
    setting,
)
from server.config.store_url import redis_url
from server.config.unused import keys_without_effect
from server.errors import shown
from server.keyhash import HashedKey
from server.protocol.fallback_lists import table_in, targets_in
from server.protocol.fallbacks import DEEPEST, EVERY, Fallbacks
from server.protocol.jsontext import is_cut
from server.protocol.routing import BackgroundMode

ENVIRON = "os.environ/"
CERT_VARIABLE, KEY_VARIABLE = "SSL_CERTFILE_PATH", "SSL_KEYFILE_PATH"


class Config(Foreign):
    """The whole config file."""

    model_list: list[ModelEntry] = Field(default_factory=list)
    credential_list: list[Credential] = Field(default_factory=list)
    include: list[str] = Field(
        [], description="Further files; their lists are added to those here, their other sections replace them."
    )
    litellm_settings: LiteLLMSettings = LiteLLMSettings()
    router_settings: RouterSettings = RouterSettings()
    general_settings: GeneralSettings = GeneralSettings()
    pollux: Pollux = Pollux()
    _included: tuple[Path, ...] = PrivateAttr(())
    _surprises: tuple[str, ...] = PrivateAttr(())

    @property
    def included(self) -> tuple[Path, ...]:
        """The files that were read beside the first one."""
        return self._included

    @property
    def surprises(self) -> tuple[str, ...]:
        """What is probably not intended in how the files include each other."""
        return self._surprises

    def came_from(self, merged: Merged) -> None:
        self._included, self._surprises = tuple(merged.included), tuple(merged.surprises)

    @cached_property
    def background_mode(self) -> BackgroundMode:
        section = self.litellm_settings.responses.background_mode
        return BackgroundMode(section.polling_via_cache, tuple(section.native_background_mode or ()))

    @property
    def ttl_s(self) -> float:
        return self.litellm_settings.responses.background_mode.ttl

    @property
    def num_retries(self) -> int:
        for given in (self.router_settings.num_retries, self.litellm_settings.num_retries):
            if given is not None:
                return given
        return 2

    @cached_property
    def fallbacks(self) -> Fallbacks:
        """What holds for requests that say nothing themselves. Of two lists the first that is not empty counts."""
        router, general = self.router_settings, self.litellm_settings
        listed = {
            name: getattr(router, name) or getattr(general, name)
            for name in ("fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
        }
        table = table_in(listed["fallbacks"])
        if default := listed["default_fallbacks"]:
            table = {**table, EVERY: targets_in(default)}
        deepest = next((given for given in (router.max_fallbacks, general.max_fallbacks) if given is not None), DEEPEST)
        return Fallbacks(
            table,
            table_in(listed["context_window_fallbacks"]) or None,
            table_in(listed["content_policy_fallbacks"]) or None,
            deepest=deepest,
        )

    @property
    def allowed_fails(self) -> int:
        for given in (self.router_settings.allowed_fails, self.litellm_settings.allowed_fails):
            if given is not None:
                return given
        return 0

    def master_keys(self, environ: Mapping[str, str] = os.environ) -> list[HashedKey]:
        """All that open everything: several while a key is replaced by another."""
        if given := self.general_settings.master_key:
            return given
        key = setting(environ, "LITELLM_MASTER_KEY")
        return [HashedKey.of(key)] if key else []

    def store_url(self, environ: Mapping[str, str] = os.environ) -> str:
        """POLLUX_STORE, else `pollux.store`, else `cache_params` of type redis, else the embedded server."""
        if chosen := setting(environ, "POLLUX_STORE") or self.pollux.store:
            return chosen
        if self.litellm_settings.cache_params.type == "redis":
            return redis_url(self.litellm_settings.cache_params, environ)
        return "embedded://"

    def tls(self, environ: Mapping[str, str] = os.environ) -> Tls:
        """`pollux.tls`. LiteLLM's SSL_CERTFILE_PATH and SSL_KEYFILE_PATH overrule its files.

        Raises:
            ConfigError: only one of the two variables is set

        """
        cert, key = setting(environ, CERT_VARIABLE), setting(environ, KEY_VARIABLE)
        if (cert is None) != (key is None):
            raise ConfigError(f"{CERT_VARIABLE} and {KEY_VARIABLE} go together: set both, or neither")
        named = {"cert_file": cert, "key_file": key}
        return self.pollux.tls.model_copy(update=named) if cert else self.pollux.tls


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a file, and those that it includes.

    Raises:
        ConfigError

    """
    return config_of(read_merged(path), environ)


def config_of(merged: Merged, environ: Mapping[str, str] = os.environ) -> Config:
    """Check what was read of files.

    Raises:
        ConfigError: names the file that is at fault, if there are several

    """
    try:
        config = parse_config(merged.data, environ)
    except ConfigError as error:
        raise ConfigError("\n".join(map(merged.located, str(error).splitlines()))) from error
    config.came_from(merged)
    return config


def parse_config(data: dict[str, Any], environ: Mapping[str, str] = os.environ) -> Config:
    """Check the content of a config file.

    Raises:
        ConfigError

    """
    unset: dict[str, str] = {}
    try:
        resolved = _resolve(data, environ, "", unset)
    except RecursionError:
        raise ConfigError("the config is nested too deeply, or a part of it contains itself (an alias)") from None
    lacking = _take_out(resolved, unset)
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        complaints = [_complaint(detail, unset) for detail in error.errors()]
        complaints += [_not_set(path, name) for path, name in unset.items() if path.startswith(_NEEDED)]
        raise ConfigError("\n".join(dict.fromkeys(complaints))) from error
    unused = tuple(keys_without_effect(config))
    # LiteLLM's other sections, such as that of its database, may name variables that are set only where LiteLLM runs.
    needed = [path for path in unset if not any(path == key or path.startswith(f"{key}.") for key in unused)]
    if needed:
        raise ConfigError("\n".join(_not_set(path, unset[path]) for path in needed))
    config = _completed(config, lacking)
    _check(config)
    return config


def _completed(config: Config, lacking: Mapping[tuple[str, int], Mapping[str, Sequence[str]]]) -> Config:
    """The config with credentials in its deployments, and these with the variables that they lack."""
    for index, entry in enumerate(config.model_list):
        entry.lacking([name for names in lacking.get(("model_list", index), {}).values() for name in names])
    unset: dict[str, Mapping[str, Sequence[str]]] = {}
    for index, credential in enumerate(config.credential_list):
        # Of two with the same name the first one counts.
        unset.setdefault(credential.credential_name, lacking.get(("credential_list", index), {}))
    entries = [with_credential(entry, config.credential_list, unset) for entry in config.model_list]
    return config if entries == config.model_list else config.model_copy(update={"model_list": entries})


_NEEDED = ("pollux.", "general_settings.master_key", "litellm_settings.cache_params.")
"""Settings whose variables must be set, else the start fails. A deployment that lacks one is merely unusable."""
_MAY_LACK = (
    ("model_list", "litellm_params"),
    ("model_list", "model_info"),
    ("credential_list", "credential_values"),
)
"""Sections, and the mappings in their entries, whose variables need not be set."""


def _take_out(resolved: dict[str, Any], unset: dict[str, str]) -> dict[tuple[str, int], dict[str, list[str]]]:
    """Remove parameters of deployments and credentials that name unset variables.

    Returns these variables for each entry (its section and index), by parameter.
    """
    found: dict[tuple[str, int], dict[str, list[str]]] = {}
    for path in list(unset):
        section, *steps = path.split(".")
        if len(steps) < 3 or (section, steps[1]) not in _MAY_LACK:
            continue
        holder = _mapping_at(resolved, section, steps[0], steps[1])
        if holder is not None:
            if steps[2] != "model":
                holder.pop(steps[2], None)
            found.setdefault((section, int(steps[0])), {}).setdefault(steps[2], []).append(unset.pop(path))
    return found


def _mapping_at(resolved: dict[str, Any], section: str, index: str, name: str) -> dict[str, Any] | None:
    """The mapping in an entry of a list; None if the path only looks like this one, as keys may contain dots."""
    entries = resolved.get(section)
    if not isinstance(entries, list) or not index.isdecimal() or int(index) >= len(entries):
        return None
    entry = entries[int(index)]
    found = entry.get(name) if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else None


def _not_set(path: str, name: str) -> str:
    return f"{path}: the environment variable {name} is not set"


def _complaint(detail: Any, unset: Mapping[str, str]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if path in unset:
        return _not_set(path, unset[path])
    if detail["type"] == "extra_forbidden":
        known = list(_model_around(path).model_fields)
        meant = get_close_matches(path.rpartition(".")[2], known)
        return f"{path}: there is no such key. " + (
            f"Did you mean {' or '.join(meant)}?" if meant else f"Known are: {', '.join(known)}"
        )
    return f"{path}: {detail['msg']}"


def _model_around(path: str) -> type[Ours]:
    """The section of ours in which this path stands."""
    if path.startswith("pollux.keys."):
        return Key
    if path.startswith("pollux.tls."):
        return Tls
    return ModelPrice if path.startswith("pollux.prices.") else Pollux


def _check(config: Config) -> None:
    owners = [key.name for key in config.pollux.keys]
    if "master" in owners:
        raise ConfigError("pollux.keys: the name master belongs to the master key")
    if taken := [owner for owner in owners if GUEST.fullmatch(owner)]:
        raise ConfigError(f"pollux.keys: names like {taken[0]} belong to keys that are not listed, see accept_any_key")
    ids: dict[str, str] = {}
    for entry in config.model_list:
        given = entry.model_info.id
        if given and ids.setdefault(given, entry.model_name) != entry.model_name:
            raise ConfigError(f"model_list: two models have the model_info.id {given}")


def _resolve(value: Any, environ: Mapping[str, str], path: str, unset: dict[str, str]) -> Any:
    """Replace each `os.environ/NAME` by the variable's value; `unset` gets the paths and names of unset ones.

    Raises:
        ConfigError: a text is not Unicode

    """
    if isinstance(value, dict):
        for key in value:
            _text(str(key), f"{path}.{key}".lstrip("."))
        return {key: _resolve(item, environ, f"{path}.{key}".lstrip("."), unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, environ, f"{path}.{index}", unset) for index, item in enumerate(value)]
    if isinstance(value, str) and value.startswith(ENVIRON):
        name = _text(value.removeprefix(ENVIRON), path)
        if name in environ:
            return _text(environ[name], path)
        unset[path] = name
    return _text(value, path) if isinstance(value, str) else value


def _text(value: str, path: str) -> str:
    """The text, if it can be stored and sent: YAML can hold half of a surrogate pair, a variable can hold any bytes."""
    if is_cut(value):
        raise ConfigError(f"{shown(path)}: the text is not valid Unicode")
    return value
