"""The ways of requests: which models one may go to, by which deployments, and on behalf of whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from server.config import Config
from server.errors import ModelNotFound
from server.keyring import Keyring, Principal, is_guest
from server.protocol.fallback_lists import wished_in
from server.protocol.fallbacks import Fallbacks, Walk
from server.upstream.catalog import OWN_APIS, PROVIDERS
from server.upstream.deployments import Deployment, Deployments, not_for_guests
from server.upstream.providers import resolve


class Ways:
    """Finds the models that a request may fall back to, and their deployments."""

    def __init__(self, config: Config, deployments: Deployments, keyring: Keyring) -> None:
        self.fallbacks = replace(config.fallbacks, alike=_alike)
        self._deployments = deployments
        self._keyring = keyring
        self._for_all = not config.general_settings.enforce_fallback_model_access

    def walk(self, model: str, body: Mapping[str, Any], principal: Principal) -> Walk:
        """The way of a request for this model.

        Raises:
            InvalidType, InvalidValue: its own lists can't be read
            ModelNotFound: they name a model that is unknown, or that the principal may not use

        """
        wished = wished_in(body)
        for name in () if wished.none else wished.models:
            if not (self.serving(name) and self.may_use(principal, name)):
                raise ModelNotFound(name, param="fallbacks")
        return Walk(wished.put_over(self.fallbacks), model, lambda name: self._for_all or self.may_use(principal, name))

    def walk_of_job(self, model: str, body: Mapping[str, Any], owner: str) -> Walk:
        """The same for a stored request, of which only the owner is known: any of his keys may allow a model."""
        principal = self._keyring.known_as(owner)
        fallbacks = wished_in(body).put_over(self.fallbacks) if principal is not None else Fallbacks()
        return Walk(fallbacks, model, lambda name: self._for_all or self.may_use(principal, name))

    def may_use(self, principal: Principal | None, model: str) -> bool:
        """Whether the principal may use the model, by its own name or by the `model_name` of a deployment of it."""
        if principal is None:
            return False
        return principal.may_use(model) or any(
            principal.may_use(deployment.model_name) for deployment in self.serving(model)
        )

    def may_reach(self, principal: Principal, deployment: Deployment) -> bool:
        """Whether a response of this principal's can have been made here."""
        if principal.is_guest and not deployment.forwards_key:
            return False
        return principal.models is None or any(
            deployment in self.serving(name) for model in principal.models for name in self._from(model)
        )

    def _from(self, model: str) -> list[str]:
        return [model, *(self.fallbacks.reachable(model) if self._for_all else ())]

    def serving(self, name: str) -> list[Deployment]:
        """The deployments of a model; a fallback may also name a single deployment, by its id."""
        single = self._deployments.get(name)
        return self._deployments.serving(name) or ([single] if single else [])

    def usable(self, name: str, owner: str) -> list[Deployment]:
        """Those of them that can be used for this owner: a guest must not be served with a key of ours.

        Raises:
            ModelNotFound: there are none
            ModelNotServed: none of them can be used
            Forbidden: none of them serves the owner

        """
        usable = self._deployments.usable(name) or self.serving(name)
        if not usable:
            raise ModelNotFound(name)
        if not is_guest(owner):
            return usable
        forwarding = [deployment for deployment in usable if deployment.forwards_key]
        if not forwarding:
            raise not_for_guests(name)
        return forwarding

    def name_at(self, deployment: Deployment, model: str) -> str:
        """By which name a deployment is asked to go on with a response: the model, or what it has fallen back to."""
        if deployment in self.serving(model):  # nearly always
            return self._deployments.canonical(model)
        names = (name for name in self.fallbacks.reachable(model) if deployment in self.serving(name))
        return self._deployments.canonical(next(names, model))


def _alike(model: str) -> str | None:
    """The name with the prefix of its provider, or without it."""
    prefix, slash, rest = model.partition("/")
    if slash:
        return rest if prefix in PROVIDERS or prefix in OWN_APIS else None
    provider = resolve(model, None, None)
    return f"{provider}/{model}" if provider else None
