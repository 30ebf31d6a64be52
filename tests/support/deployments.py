"""Deployments for tests that reach none: of one model, and told apart by their names."""

from typing import Any

from server.upstream.deployments import Deployment


def deployment(name: str, **config: Any) -> Deployment:
    """A deployment with this id."""
    return Deployment(
        id=name,
        model_name="m",
        provider="openai",
        listed_provider="openai",
        upstream_model="m",
        base_url=None,
        query="",
        headers={},
        timeout_s=1,
        **config,
    )
