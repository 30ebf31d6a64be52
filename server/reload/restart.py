"""The settings that only a start can change, because what is made of them lives as long as the process.

And what only a start can do: to open a server to everybody that has asked for keys so far, or to serve nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from server.config import Config
from server.config.sections import ConfigError
from server.keyring import Keyring

NEED_A_RESTART = (
    # How the store is kept: whoever shares it must agree, and its connections hold what is under way.
    *("store", "shards", "store_sync", "store_compression"),
    *("feed_retention_s", "feed_max_events", "usage_retention_s"),
    # How jobs are leased: runs that are under way go by it.
    *("lease_s", "store_grace_s", "max_attempts", "max_age_s", "worker_concurrency"),
    # How the process listens and logs.
    *("max_body_bytes", "log_format", "access_log", "tracing"),
    # What clients may do who are connected already.
    *("tls", "header_timeout_s", "body_timeout_s", "keepalive_timeout_s"),
    *("max_connections", "max_connections_per_address", "trusted_proxies"),
)
"""The names of these settings in the section `pollux`."""


def carried_over(running: Config, read: Config, environ: Mapping[str, str] = os.environ) -> tuple[Config, list[str]]:
    """The config with which a running process can go on, and the paths of settings that differ and need a restart.

    It is the one that was read, except for these settings: they stay as they are.

    Raises:
        ConfigError: it names no store that could be started with; or it has no key any more, or nothing at all

    """
    if running.model_fields_set and not read.model_fields_set:
        raise ConfigError("the file is empty: it is just being written, or a pipe that was read before")
    if Keyring(read).empty and not Keyring(running).empty and not read.pollux.allow_unauthenticated:
        # Half a file is mostly valid. On loopback, where a proxy may listen for the whole world, it would let in all.
        raise ConfigError(
            "no key is left in it, so every caller would be the master: restart Pollux if that is meant, or set "
            "pollux.allow_unauthenticated: true"
        )
    kept = {name: getattr(running.pollux, name) for name in NEED_A_RESTART}
    differing = [f"pollux.{name}" for name, value in kept.items() if getattr(read.pollux, name) != value]
    was, litellm = running.litellm_settings.cache_params, read.litellm_settings
    if running.store_url(environ) != read.store_url(environ) and "pollux.store" not in differing:
        differing.append("litellm_settings.cache_params")
    return (
        read.model_copy(
            update={
                "pollux": read.pollux.model_copy(update=kept),
                "litellm_settings": litellm.model_copy(update={"cache_params": was}),
            }
        ),
        differing,
    )
