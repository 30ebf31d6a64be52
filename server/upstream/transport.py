"""How a deployment is reached: through which proxy, and how its certificate is checked.

The environment decides (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`),
and LiteLLM's `ssl_verify`. aiohttp's `trust_env` is not used, because it would also send the logins in a `.netrc`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from server.config.sections import ConfigError, setting

Verify = bool | str
"""True: check against the system's authorities; a path: against those in this file; False: don't check."""


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL.

    Raises:
        ConfigError: the proxy is neither http:// nor https://

    """
    parts = urlsplit(url)
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigError(f"the proxy of the environment is {urlsplit(proxy).scheme}://, and only http:// is supported")
    return proxy


def verify_by(stated: Verify | None, environ: Mapping[str, str]) -> Verify:
    """How certificates are checked: as the config states, else SSL_VERIFY, else the environment's bundle."""
    if stated is None:
        stated = setting(environ, "SSL_VERIFY")
    if isinstance(stated, str) and stated.lower() in ("true", "false"):
        stated = stated.lower() == "true"
    if stated is None or stated is True:
        # OpenSSL reads SSL_CERT_FILE by itself.
        bundle = None if setting(environ, "SSL_CERT_FILE") else setting(environ, "REQUESTS_CA_BUNDLE")
        return bundle or True
    return stated


@lru_cache(64)
def tls_of(verify: Verify) -> ssl.SSLContext | bool:
    """The value of aiohttp's parameter `ssl`.

    Raises:
        ConfigError: the file can't be used

    """
    if not isinstance(verify, str):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ssl_verify: {verify} is no readable file of certificates") from error
