"""The URL of the store that LiteLLM's `cache_params` and environment variables name."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import orjson

from server.config.sections import CacheParams, ConfigError, setting


def redis_url(params: CacheParams, environ: Mapping[str, str]) -> str:
    """A Redis, some sentinels, or some nodes of a Cluster; what is said of TLS stands in the query.

    Raises:
        ConfigError: they can't be read

    """
    url = _place(params, environ)
    options = _tls_options(params)
    if not options or url.partition(":")[0] not in _ENCRYPTED:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options)}"


_ENCRYPTED = ("rediss", "sentinels", "clusters")
"""The schemes of URLs with TLS."""


def _tls_options(params: CacheParams) -> dict[str, str]:
    options = {
        "ssl_cert_reqs": params.ssl_cert_reqs,
        "ssl_check_hostname": None if params.ssl_check_hostname is None else str(params.ssl_check_hostname).lower(),
        "ssl_ca_certs": params.ssl_ca_certs,
        "ssl_certfile": params.ssl_certfile,
        "ssl_keyfile": params.ssl_keyfile,
    }
    if params.ssl_cert_reqs == "none":
        options["ssl_check_hostname"] = "false"  # the client refuses to check the one without the other
    return {name: value for name, value in options.items() if value is not None}


def _place(params: CacheParams, environ: Mapping[str, str]) -> str:
    named = params.url or params.host or params.sentinel_nodes
    if params.redis_startup_nodes or (setting(environ, "REDIS_CLUSTER_NODES") and not named):
        return _cluster_url(params, environ)
    if params.sentinel_nodes:
        return _sentinel_url(params, environ)
    url = params.url.get_secret_value() if params.url else None
    if url is None and params.host is None:
        url = setting(environ, "REDIS_URL")
    if url:
        return url
    host = params.host or setting(environ, "REDIS_HOST") or "127.0.0.1"
    port = params.port or setting(environ, "REDIS_PORT") or 6379
    credentials = _credentials(params, environ)
    return f"{'rediss' if params.ssl else 'redis'}://{credentials}{host}:{port}/{params.db or 0}"


def _credentials(params: CacheParams, environ: Mapping[str, str]) -> str:
    secret = params.password.get_secret_value() if params.password else setting(environ, "REDIS_PASSWORD")
    user = quote(params.username or setting(environ, "REDIS_USERNAME") or "", safe="")
    return f"{user}:{quote(secret, safe='')}@" if secret else ""


def _cluster_url(params: CacheParams, environ: Mapping[str, str]) -> str:
    where, nodes = "litellm_settings.cache_params.redis_startup_nodes", params.redis_startup_nodes
    if not nodes:
        where = "REDIS_CLUSTER_NODES"
        try:
            nodes = orjson.loads(environ[where])
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"{where} is not valid JSON: {error.msg}") from error
    try:
        places = ",".join(f"{_host(node['host'])}:{int(node.get('port') or 6379)}" for node in nodes)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"{where} must be a list of nodes, each with a host and a port") from None
    if not places:
        raise ConfigError(f"{where} names no node")
    return f"{'clusters' if params.ssl else 'cluster'}://{_credentials(params, environ)}{places}"


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _sentinel_url(params: CacheParams, environ: Mapping[str, str]) -> str:
    if not params.service_name:
        raise ConfigError("litellm_settings.cache_params.service_name is missing: sentinels know the primary by it")
    nodes = ",".join(f"{host}:{port}" for host, port in params.sentinel_nodes or ())
    credentials = _credentials(params, environ)
    own = params.sentinel_password.get_secret_value() if params.sentinel_password else ""
    query = f"?sentinel_password={quote(own, safe='')}" if own else ""
    scheme = "sentinels" if params.ssl else "sentinel"
    return f"{scheme}://{credentials}{nodes}/{quote(params.service_name, safe='')}/{params.db or 0}{query}"
