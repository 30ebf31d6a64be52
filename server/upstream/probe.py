"""Asking a deployment whether it is there and lets us in, without making a response."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from server.errors import PolluxError
from server.upstream.credential import Outgoing
from server.upstream.deployments import Deployment
from server.upstream.grants import Grants
from server.upstream.transport import tls_of

PATIENCE = aiohttp.ClientTimeout(total=15, sock_connect=5)


@dataclass(frozen=True)
class Probed:
    """What became of it."""

    lets_in: bool | None
    """Whether it took our credential; None: it answers, but that can't be told without making a response."""
    reached: bool
    told: str


async def probe(http: aiohttp.ClientSession, grants: Grants, deployment: Deployment) -> Probed:
    """Ask a deployment for its models, with its credential. That is free, and most providers have such a list."""
    if deployment.unusable is not None or deployment.base_url is None:
        return Probed(None, reached=False, told=f"can't be used: {deployment.unusable}")
    url = f"{deployment.base_url}/models" + (f"?{deployment.query}" if deployment.query else "")
    began = time.perf_counter()
    try:
        granted = await grants.headers(deployment.credential, Outgoing("GET", url, None))
        async with http.get(
            url,
            headers={**deployment.headers, **granted},
            proxy=deployment.proxy,
            ssl=tls_of(deployment.verify),
            timeout=PATIENCE,
            allow_redirects=False,
        ) as answer:
            status = answer.status
    except PolluxError as error:
        return Probed(None, reached=False, told=error.message)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Probed(None, reached=False, told=f"can't be reached: {_why(error)}")
    took = f"in {(time.perf_counter() - began) * 1000:.0f} ms"
    if status == 200:
        return Probed(lets_in=True, reached=True, told=f"answers {took}, and takes the credential")
    if status in (401, 403) and not deployment.forwards_key:
        return Probed(lets_in=False, reached=True, told=f"refuses the credential ({status})")
    return Probed(None, reached=True, told=f"answers {took}; whether it takes the credential is not known ({status})")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return type(error).__name__
